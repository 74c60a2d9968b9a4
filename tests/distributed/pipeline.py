"""Engines on tiny checkpoints, whole or in pipeline stages whose ranks are threads, and what becomes of requests."""

from __future__ import annotations

from contextlib import contextmanager

import attrs
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.build import build_resolved
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.resolve import resolve
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.testing.rank_threads import RankThreads
from vllm_core.testing.speculating import assert_empty

VOCAB = 64
LONGEST = 96
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip


def llama(tied=False):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


def gemma():
    """Scaled embeddings, a tied head, logits with a cap, and every second layer sees a window."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, sliding_window=12, query_pre_attn_scalar=8)).eval()


@contextmanager
def engine_on(folder, stages=1, tensor=1, **changed):
    """A ``LocalEngine``; with ranks if there are several stages."""
    usual = {"dtype": "float32", "max_model_len": LONGEST, "max_num_seqs": 8, "block_size": 4}
    settings = EngineSettings(
        model=str(folder),
        skip_tokenizer_init=True,
        pipeline_parallel_size=stages,
        tensor_parallel_size=tensor,
        **{**usual, **changed},
    )
    resolved = resolve(settings)
    if stages * tensor > 1:
        resolved = attrs.evolve(resolved, executor_target=RankThreads)
    engine = LocalEngine.of(build_resolved(resolved))
    try:
        yield engine
    finally:
        engine.core.executor.stop()


@attrs.frozen
class Ask:
    prompt: tuple[int, ...]
    params: SamplingParams
    at: int = 0  # step before which it arrives
    abort_at: int | None = None


def prompt(tokens, seed=0):
    make = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, VOCAB, (tokens,), generator=make).tolist())


def greedy(tokens, **more):
    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, **more)


def run(engine, asks, between=None):
    """All requests until none is left: outputs in their order."""
    done, step, due = {}, 0, dict(enumerate(asks))
    while due or engine.has_work:
        for number, ask in list(due.items()):
            if ask.at <= step or not engine.has_work:
                engine.add_request(str(number), list(ask.prompt), ask.params)
                del due[number]
        for number, ask in enumerate(asks):
            if ask.abort_at == step:
                engine.abort(str(number))
        if between is not None:
            between(engine)
        done.update({output.request_id: output for output in engine.step() if output.finished})
        step += 1
    assert_empty(engine)
    outputs = [done[str(number)] for number in range(len(asks))]
    assert not [output.error for output in outputs if output.error]
    return outputs


def tokens(outputs):
    return [[sample.token_ids for sample in output.outputs] for output in outputs]
