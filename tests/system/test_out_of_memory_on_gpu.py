"""A device that is really full: a step is lost and run in parts, or a request ends. Never the engine, or a token."""

import logging
import os
from contextlib import contextmanager, suppress

import pytest
import torch
import transformers

from vllm_core import LLM, SamplingParams
from vllm_core.engine.errors import RequestError
from vllm_core.engine.scheduler import Scheduler
from vllm_core.runner.static_step import StaticStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MiB, GiB = 1 << 20, 1 << 30
GREEDY = {"temperature": 0, "ignore_eos": True}


def checkpoint_of(folder, intermediate_size, layers):
    """Narrow but for its MLP, so that a step's activations are large and all else is small."""
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=211,
        hidden_size=128,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return checkpoint_of(tmp_path_factory.mktemp("wide-mlp"), 8192, 2)


def make(checkpoint, **settings):
    wanted = {"max_num_batched_tokens": 4096, "max_num_seqs": 16, "max_model_len": 2048, "kv_cache_memory": 64 * MiB}
    return LLM(
        checkpoint, device="cuda", dtype="float32", skip_tokenizer_init=True, enable_prefix_caching=False,
        **(wanted | settings),
    )  # fmt: skip


def ask(llm, prompts, tokens=12, lost=None):
    """Outputs; steps that have been lost meanwhile, which are added to ``lost``."""
    params = [SamplingParams(**GREEDY, max_tokens=tokens + i) for i in range(len(prompts))]
    lost, lose = [] if lost is None else lost, Scheduler.lose

    def watched(self, error):
        lost.append(sum(self.flights[-1].plan.num_tokens))
        lose(self, error)

    Scheduler.lose = watched
    try:
        return llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False), lost
    finally:
        Scheduler.lose = lose


def tokens_of(outputs):
    assert not any(output.error for output in outputs), [output.error for output in outputs]
    return [output.outputs[0].token_ids for output in outputs]


def prompts_of(lengths):
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(0, 211, (length,), generator=draw).tolist() for length in lengths]


LONG = prompts_of([1900, 40, 1700, 900, 1500, 7, 1200, 600])


@contextmanager
def full(leave, how, least=MiB + 512):
    """Nothing of the device is free but ``leave`` bytes.

    leave   0, or at least 20 MiB: torch takes no less for a tensor of more than 1 MiB
    how     "limit": torch may take no more than it has; "device": really all of it is taken
    least   the smallest piece that is taken of what torch keeps for reuse; smaller ones are left
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    if how == "device" and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("takes the whole device, which tests beside it need: run it alone, without -n")
    held = []
    try:
        if how == "limit":
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + leave + 4 * MiB) / total)
        kept = torch.empty(leave, dtype=torch.uint8, device="cuda") if leave else None
        for size in (*(GiB >> i for i in range(10)), least):
            with suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        if how == "device":  # also if another process gives some of it back
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 4 * MiB) / total)
        del kept
        yield
    finally:
        del held
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("how", ["limit", "device"])
@pytest.mark.parametrize("settings", [{}, {"enforce_eager": True}, {"async_scheduling": False}])
def test_prompts_too_large_for_a_step_are_computed_in_smaller_ones_and_all_get_their_tokens(checkpoint, how, settings):
    with make(checkpoint, **settings) as llm:
        sure, lost = ask(llm, LONG)
        assert not lost, "the device is too full for the test without its help"
        expected = tokens_of(sure)

        with full(48 * MiB, how):
            outputs, lost = ask(llm, LONG)
        assert tokens_of(outputs) == expected
        assert max(lost) > 2000, "the large steps had room after all"
        assert min(lost) > 1

        outputs, lost = ask(llm, LONG)  # there is memory again
        assert tokens_of(outputs) == expected
        assert not lost


def test_a_request_that_finds_no_memory_even_alone_ends_with_the_reason_and_the_next_are_served(tmp_path):
    checkpoint = checkpoint_of(tmp_path, 160 * 1024, 1)  # 1.25 MiB of activations a token
    prompts = prompts_of([30, 5, 60])
    with make(checkpoint, max_num_batched_tokens=64, max_model_len=128, enforce_eager=True) as llm:
        expected = tokens_of(ask(llm, prompts)[0])

        lost = []
        with full(0, "limit"), pytest.raises(RequestError, match="needs more memory than the device has free"):
            ask(llm, prompts, lost=lost)  # none of them is served, so the first one's reason is raised
        assert min(lost) == 1

        outputs, lost = ask(llm, prompts)
        assert (tokens_of(outputs), lost) == (expected, [])


@pytest.mark.parametrize("settings", [{}, {"async_scheduling": False}])
def test_a_full_cache_preempts_and_every_request_gets_its_tokens(checkpoint, settings):
    prompts = prompts_of([8] * 40)
    small = {"max_model_len": 256, "max_num_batched_tokens": 128, **settings}
    with make(checkpoint, **small) as llm:
        expected = tokens_of(ask(llm, prompts, tokens=200)[0])
    with make(checkpoint, **small, kv_cache_memory=3 * MiB) as llm:  # 1,500 tokens for 16 rows of 208 to 247
        outputs, lost = ask(llm, prompts, tokens=200)
        assert tokens_of(outputs) == expected
        assert not lost
        assert sum(output.metrics.num_preemptions for output in outputs) > 10
        cache = llm._engine.core.cache
        assert cache.num_free == cache.pool.num_pages - 1


@pytest.fixture
def while_recorded(monkeypatch):
    """``while_recorded(call)``: it is called at the end of each step that a graph is recorded of, while it is."""
    pytest.importorskip("vllm_plugin_triton_attention", reason="needs an attention backend that graphs can hold")
    run = StaticStep.run

    def install(call):
        def watched(self):
            run(self)
            if torch.cuda.is_current_stream_capturing():
                call(self.size)

        monkeypatch.setattr(StaticStep, "run", watched)

    return install


def too_much(size):
    torch.empty(1 << 46, dtype=torch.uint8, device="cuda")


def graphs_of(llm):
    return llm.built.executor._runner.graphs


SHORT = prompts_of([5, 9, 3, 4, 8])  # 5 rows decode together, then fewer: sizes that are recorded late
THREE = prompts_of([6, 2, 4])


def test_a_graph_that_there_is_no_memory_to_record_late_leaves_those_before_and_after_it_whole(
    checkpoint, while_recorded, caplog
):
    with make(checkpoint) as llm:
        eager = make(checkpoint, enforce_eager=True)
        expected = [tokens_of(ask(eager, prompts)[0]) for prompts in (SHORT, THREE)]
        eager.shutdown()

        tries = []
        while_recorded(lambda size: (tries.append(size), too_much(size)))
        with caplog.at_level(logging.WARNING):
            outputs, lost = ask(llm, SHORT)
        assert tokens_of(outputs) == expected[0]
        assert not lost, "a graph that cannot be recorded is no reason to lose a step"
        assert tries
        assert all(tries.count(size) == 2 for size in tries)
        assert "no memory to record a step" in caplog.text
        failed = {size for size, step in graphs_of(llm)._recorded.items() if step is None}
        assert failed == set(tries)

        while_recorded(lambda size: None)
        reserved = torch.cuda.memory_reserved()
        for _ in range(3):  # sizes that are not there yet are recorded, in the same pool; the old ones are replayed
            assert tokens_of(ask(llm, SHORT, tokens=20)[0])[0][: len(expected[0][0])] == expected[0][0]
            assert tokens_of(ask(llm, THREE)[0]) == expected[1]
        alone = tokens_of(ask(llm, THREE[:1])[0])  # the size that was recorded at the start
        assert alone == expected[1][:1]
        assert any(graphs_of(llm)._recorded.values())
        assert torch.cuda.memory_reserved() - reserved < 512 * MiB


def test_a_first_recording_that_fails_spoils_no_later_one(checkpoint, while_recorded):
    """The pool that graphs share would end with the only one that uses it."""
    while_recorded(too_much)
    with make(checkpoint) as llm:
        assert not any(graphs_of(llm)._recorded.values())
        while_recorded(lambda size: None)
        tokens = [tokens_of(ask(llm, prompts)[0]) for prompts in (SHORT, THREE)]
        assert any(graphs_of(llm)._recorded.values())
    with make(checkpoint, enforce_eager=True) as eager:
        assert tokens == [tokens_of(ask(eager, prompts)[0]) for prompts in (SHORT, THREE)]


@pytest.mark.parametrize("how", ["limit", "device"])
def test_a_full_device_keeps_late_graphs_from_being_recorded_and_no_request_from_its_tokens(checkpoint, how):
    """Recording fails where it wants memory, then the step op by op; in steps of one token all get through."""
    pytest.importorskip("vllm_plugin_triton_attention", reason="needs an attention backend that graphs can hold")
    with make(checkpoint, enforce_eager=True) as eager:
        expected = tokens_of(ask(eager, LONG)[0])
    with make(checkpoint) as llm:
        ask(llm, THREE[:1])  # what is loaded at first use is there
        with full(20 * MiB, how):
            outputs, lost = ask(llm, LONG)
        assert lost
        assert tokens_of(outputs) == expected
        assert tokens_of(ask(llm, LONG)[0]) == expected
