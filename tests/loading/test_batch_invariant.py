"""LLM(batch_invariant=True) on a real tiny model: a request's tokens and probabilities, alone and in company."""

from __future__ import annotations

import random

import pytest
import torch

from vllm_core import LLM, SamplingParams
from vllm_core.plugins.errors import NoOffer, PluginError

GPU = torch.cuda.is_available()
OPTIONS = {"max_model_len": 128, "max_num_batched_tokens": 24, "max_num_seqs": 8, "enable_prefix_caching": False}


def llm(folder, **more):
    try:
        return LLM(str(folder), batch_invariant=True, seed=3, **{**OPTIONS, **more})
    except PluginError as error:
        pytest.skip(f"not all kernels are there: {error}")


def prompts(n):
    draw = random.Random(1)
    return [{"prompt_token_ids": [draw.randrange(2, 400) for _ in range(draw.randrange(1, 60))]} for _ in range(n)]


def told(output):
    one = output.outputs[0]
    return one.token_ids, [{i: p.logprob for i, p in line.items()} for line in one.logprobs]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_request_gets_the_same_numbers_bit_for_bit_alone_and_in_a_batch(folder, dtype):
    engine = llm(folder, dtype=dtype)
    greedy = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=5)
    drawn = SamplingParams(temperature=0.9, top_p=0.9, top_k=50, seed=7, max_tokens=12, ignore_eos=True, logprobs=5)
    wanted, asked = prompts(9), [greedy, drawn] * 4 + [greedy]
    together = engine.generate(wanted, asked, use_tqdm=False)  # prompts are cut where the budget ends
    for prompt, params, output in zip(wanted, asked, together, strict=True):
        alone = engine.generate([prompt], [params], use_tqdm=False)[0]
        assert told(alone) == told(output)
    engine.shutdown()


def test_the_choice_is_on_record(folder):
    engine = llm(folder)
    kinds = {d.hook for d in engine.built.decisions}
    chosen = [d for d in engine.built.decisions if d.hook in ("op_kernel", "attention_backend", "sampler")]
    assert {"attention_backend", "sampler"} <= kinds
    assert all("batch_invariant" in d.offer.capabilities for d in chosen)
    assert all(d.query.batch_invariant for d in chosen)
    engine.shutdown()


def test_without_kernels_it_is_an_error_before_anything_is_read(folder):
    with pytest.raises(NoOffer, match="batch") as error:
        LLM(str(folder), batch_invariant=True, device="cpu", plugins={"allow": ["vllm-plugin-llama"]}, **OPTIONS)
    assert "--batch-invariant" in str(error.value) or "linear" in str(error.value)


def test_a_backend_that_depends_on_the_batch_is_refused_by_name(folder):
    with pytest.raises(PluginError, match=r'attention backend "reference" was asked for') as error:
        LLM(str(folder), batch_invariant=True, attention_backend="reference", **OPTIONS)
    assert 'does not say that it is "batch_invariant"' in str(error.value)
