"""The whole engine, end to end: greedy tokens under preemption are the reference's."""

from __future__ import annotations

from typing import Any

import torch

from vllm_core.engine.cache.groups import pages_of_sequence
from vllm_core.engine.llm import LLM
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.cache import TokenCache
from vllm_core.testing.case import Case

PROMPTS = (19, 7, 23, 14)  # tokens of each
NEW = 36  # tokens
STEP = 32  # tokens a step: prompts are cut into chunks
LONGEST = max(PROMPTS) + NEW


class Generating:
    """Test of each variant."""

    def test_generate_gives_the_references_greedy_tokens(self, case: Case) -> None:
        """Overlapped loop, chunked prompts, and a cache too small for all requests, so that some are preempted."""
        prompts = [case.prompt(n) for n in PROMPTS]
        with LLM(str(case.folder), **_settings(case)) as llm:
            params = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True)
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        for ids, output in zip(prompts, outputs, strict=True):
            assert not output.error, f"{case.name}: {output.error}"
            _check(case, ids, output.outputs[0].token_ids)
        grows = any(isinstance(g.spec, TokenCache) and g.spec.kind != "sliding_window" for g in case.served.groups)
        if grows:
            preempted = sum(output.metrics.num_preemptions for output in outputs)
            assert preempted, f"{case.name}: no request was preempted; the kit gave the engine too large a cache"


def _settings(case: Case) -> dict[str, Any]:
    """Those of the variant's runner, but a cache for one sequence and a bit."""
    served = case.served.resolved.settings
    caches = case.served.runner.caches
    pages = pages_of_sequence(caches, LONGEST, step_tokens=2 * STEP) * 5 // 4 + 1
    return {
        "dtype": served.dtype,
        "device": served.device,
        "block_size": served.block_size,
        "skip_tokenizer_init": True,
        "max_model_len": LONGEST,
        "max_num_seqs": len(PROMPTS),
        "max_num_batched_tokens": STEP,
        "kv_cache_memory": pages * caches.bytes_per_page if caches.groups else None,
    }


def _check(case: Case, prompt: list[int], output: list[int]) -> None:
    """Up to rounding every token is the reference's best one after the tokens before it."""
    assert len(output) == NEW, f"{case.name}: {len(output)} tokens came, {NEW} were asked for"
    logits = case.want([*prompt, *output])[len(prompt) - 1 : -1]
    best = logits.amax(-1)
    short = best - logits.gather(1, torch.tensor(output)[:, None])[:, 0]
    # Either side may be off by the tolerance.
    bad = (short > 2 * case.tolerance * (logits.max() - logits.min())).nonzero().flatten().tolist()
    if bad:
        at = bad[0]
        raise AssertionError(
            f"{case.name}: of a prompt of {len(prompt)} tokens, greedy output token {at} is {output[at]}; the reference"
            f" takes {logits[at].argmax().item()}, whose logit is larger by {short[at].item():.3g}"
            f" ({len(bad)} of {len(output)} tokens differ)"
        )
