"""Recorded steps on a CUDA device: what a graph replays is what the same ops give one by one."""

import pytest
import torch
import transformers

from vllm_core import LLM, SamplingParams
from vllm_core.runner.graphs import StepGraphs
from vllm_core.runner.static_step import DRAW, FORWARD, GREEDY

pytest.importorskip("vllm_plugin_triton_attention", reason="needs an attention backend that graphs can hold")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=211,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("tiny-qwen3")
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def work(count=40):
    make = torch.Generator().manual_seed(1)
    prompts = [{"prompt_token_ids": torch.randint(0, 211, (3 + 5 * i,), generator=make).tolist()} for i in range(count)]
    params = [
        SamplingParams(
            temperature=0.8 * (i % 2),
            top_k=20 * (i % 4 == 1),
            presence_penalty=0.5 * (i % 8 == 4),
            logprobs=2 if i % 8 == 6 else None,
            seed=i,
            max_tokens=8 + i % 17,
            ignore_eos=True,
        )
        for i in range(count)
    ]
    return prompts, params


def generated(checkpoint, device, dtype="float32", **settings):
    """Token ids, and the endings of the recorded steps that ran."""
    endings = []
    run = StepGraphs.run

    def watched(self, plan, ending):
        step = run(self, plan, ending)
        if step is not None:
            endings.append(ending)
        return step

    StepGraphs.run = watched
    llm = LLM(
        str(checkpoint),
        device=device,
        dtype=dtype,
        skip_tokenizer_init=True,
        max_num_seqs=16,
        max_num_batched_tokens=128,
        max_model_len=256,
        kv_cache_memory=60 * 16 * 3 * 2 * 2 * 64 * 4,  # 60 pages of 16 tokens: 3 layers, K and V, 2 heads of 64
        **settings,
    )
    try:
        return [o.outputs[0].token_ids for o in llm.generate(*work(), use_tqdm=False)], endings
    finally:
        llm.shutdown()
        StepGraphs.run = run


def test_greedy_and_drawn_tokens_in_float32_are_those_of_the_cpu(checkpoint):
    tokens, endings = generated(checkpoint, "cuda")
    assert tokens == generated(checkpoint, "cpu")[0]
    assert {GREEDY, DRAW, FORWARD} >= set(endings)
    assert len(endings) > 50


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_replayed_step_is_bit_for_bit_the_step_run_op_by_op(checkpoint, dtype):
    """Two engines with steps of the same sizes; in one of them the recorded steps are run op by op."""
    from vllm_core.runner.cuda_graph import CudaRecorder

    hidden = []

    def watch(step, replay):
        def watched():
            replay()
            if step.hidden is not None:
                tokens = int(step.advance.sum())  # behind them is padding, which reads what lies in nobody's page
                hidden[-1].append(step.hidden[:tokens].clone())

        return watched

    record = CudaRecorder.__call__
    tokens = []
    try:
        for make in (record, lambda self, step: step.run):
            hidden.append([])
            CudaRecorder.__call__ = lambda self, step, make=make: watch(step, make(self, step))
            # One step at a time: which requests share a step must not depend on the clock.
            tokens.append(generated(checkpoint, "cuda", dtype, async_scheduling=False)[0])
    finally:
        CudaRecorder.__call__ = record
    assert tokens[0] == tokens[1]
    assert len(hidden[0]) == len(hidden[1]) > 5
    assert all(torch.equal(a, b) for a, b in zip(*hidden, strict=True))


def test_steps_run_one_by_one_without_graphs_on_request(checkpoint):
    tokens, endings = generated(checkpoint, "cuda", enforce_eager=True)
    assert not endings
    assert tokens == generated(checkpoint, "cpu")[0]


def test_nothing_compiles_once_the_engine_is_ready(checkpoint, monkeypatch):
    """Not even for batches of sizes and kinds that have not been seen."""
    compiler = pytest.importorskip("vllm_kernels.compiler")
    triton = pytest.importorskip("triton")
    llm = LLM(str(checkpoint), device="cuda", dtype="bfloat16", skip_tokenizer_init=True, max_num_seqs=40)
    try:
        llm.generate({"prompt_token_ids": [1, 2, 3]}, SamplingParams(max_tokens=2, ignore_eos=True), use_tqdm=False)
        for module, name in ((compiler, "compile_source"), (triton, "compile")):
            monkeypatch.setattr(module, name, lambda *args, name=name, **more: pytest.fail(f"{name} in a step"))
        outputs = llm.generate(*work(), use_tqdm=False)
        assert not any(o.error for o in outputs)
    finally:
        llm.shutdown()
