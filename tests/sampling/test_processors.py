"""Logits processors from a plugin, through the whole engine: on the device, and with ids on the host."""

import random
from itertools import pairwise

import pytest
import torch

from vllm_core import LLM, SamplingParams
from vllm_core.config.errors import SettingError

DRAFTS = {"speculative_config": {"method": "lookup", "num_speculative_tokens": 3}}
ENGINES = {
    "overlapped": {},
    "plain loop": {"async_scheduling": False},
    "drafts": DRAFTS,
    "drafts in chunks": {**DRAFTS, "max_num_batched_tokens": 40},
    "preempted": {"kv_cache_memory": 30 * 4096, "max_model_len": 96},
}


def asks(count, seed=5):
    make = random.Random(seed)
    return [{"prompt_token_ids": [make.randrange(2, 20) for _ in range(make.randint(1, 30))]} for _ in range(count)]


def params(count, **more):
    """More tokens may come than an output has, so that there is always one left."""
    common = {"allowed_token_ids": range(2, 45), "max_tokens": 40, "ignore_eos": True}
    return [SamplingParams(**{**common, **more}, temperature=(i % 3) * 0.7, seed=i) for i in range(count)]


def tokens(llm, prompts, wanted):
    return [o.outputs[0].token_ids for o in llm.generate(prompts, wanted, use_tqdm=False)]


def runs(ids, n):
    return [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]


@pytest.fixture(scope="module")
def plain(folder):
    """Without any processor."""
    with LLM(folder, dtype="float32") as llm:
        return tokens(llm, asks(8), params(8))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [2, 3])
def test_the_device_and_the_host_agree_and_no_run_comes_twice(folder, extras, plain, engine, n):
    assert any(len(set(runs(ids, n))) < len(runs(ids, n)) for ids in plain), "nothing would be proven"
    got = {}
    for name in ("no-repeat", "no-repeat-host"):
        with LLM(folder, dtype="float32", logits_processors=[name], **ENGINES[engine]) as llm:
            got[name] = tokens(llm, asks(8), params(8, extra_args={"no_repeat": n}))
    assert got["no-repeat"] == got["no-repeat-host"]
    for ids in got["no-repeat"]:
        assert len(set(runs(ids, n))) == len(runs(ids, n))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ["overlapped", "drafts"])
def test_on_a_gpu_both_give_what_the_cpu_gives(folder, extras, engine):
    wanted = params(8, extra_args={"no_repeat": 2})
    got = []
    for device, name in (("cpu", "no-repeat"), ("cuda", "no-repeat"), ("cuda", "no-repeat-host")):
        with LLM(folder, dtype="float32", device=device, logits_processors=[name], **ENGINES[engine]) as llm:
            got.append(tokens(llm, asks(8), wanted))
    assert got[0] == got[1] == got[2]


@pytest.mark.parametrize("name", ["no-repeat", "no-repeat-host"])
def test_a_request_that_does_not_ask_is_not_affected_beside_one_that_does(folder, extras, plain, name):
    with LLM(folder, dtype="float32", logits_processors=[name]) as llm:
        wanted = params(8)
        wanted[3] = params(8, extra_args={"no_repeat": 2})[3]
        for _ in range(2):  # the second time, rows were affected before
            got = tokens(llm, asks(8), wanted)
            assert [g for i, g in enumerate(got) if i != 3] == [p for i, p in enumerate(plain) if i != 3]
            assert got[3] != plain[3]
        assert tokens(llm, asks(8), params(8)) == plain


def test_wrong_parameters_fail_their_request_only_and_name_the_processor(folder, extras, plain):
    with LLM(folder, dtype="float32", logits_processors=["no-repeat"]) as llm:
        wanted = [params(1, extra_args={"no_repeat": 99})[0], params(2)[1]]
        wrong, right = llm.generate(asks(2), wanted, use_tqdm=False)
    assert 'logits processor "no-repeat": no_repeat must be a whole number from 2 to 8, not 99' in wrong.error
    assert right.outputs[0].token_ids == plain[1]


def test_parameters_for_processors_that_are_not_there_are_refused(folder):
    with (
        LLM(folder, dtype="float32") as llm,
        pytest.raises(ValueError, match=r"this engine has none \(--logits-processors names some"),
    ):
        llm.generate(asks(1), params(1, extra_args={"no_repeat": 2}), use_tqdm=False)


def test_one_that_keeps_the_likeliest_token_leaves_greedy_rows_out(folder, extras):
    with LLM(folder, dtype="float32", logits_processors=["sharpen", "no-repeat"]) as llm:
        import sampling_extras.processors as processors

        greedy = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)
        before = tokens(llm, asks(1), greedy)
        assert tokens(llm, asks(1), SamplingParams(**greedy.changed(), extra_args={"sharpen": 0.0})) == before
        assert processors.Sharpen.lines == 0
        drawn = SamplingParams(temperature=1, seed=1, max_tokens=5, ignore_eos=True, extra_args={"sharpen": 1e4})
        assert tokens(llm, asks(1), drawn) == before
        assert processors.Sharpen.lines == 5


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_fails_in_a_step_ends_those_requests_by_its_name_and_no_others(folder, extras, engine):
    factors = [None, 1.0, 10.0, "x", None, 1.0, 10.0, 10.0]
    wanted = [
        SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, extra_args=f and {"sharpen": f}) for f in factors
    ]
    with LLM(folder, dtype="float32", logits_processors=["broken"], **ENGINES[engine]) as llm:
        alone = [SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)] * len(factors)
        expected = tokens(llm, asks(len(factors)), alone)
        for _ in range(2):  # rows are taken again
            outputs = llm.generate(asks(len(factors)), wanted, use_tqdm=False)
            for factor, output, want in zip(factors, outputs, expected, strict=True):
                if factor in (10.0, "x"):
                    assert output.outputs[0].finish_reason == "error"
                    reason = "ValueError: apply must return" if factor == 10.0 else "TypeError"
                    assert output.error.startswith(f'logits processor "broken" failed: {reason}')
                else:
                    assert output.outputs[0].token_ids == want
        assert llm._engine.core.cache.usage == 0


def test_processors_stand_among_the_choices(folder, extras):
    with LLM(folder, dtype="float32", logits_processors=["sharpen", "no-repeat"]) as llm:
        made = [(d.hook, d.offer.name, d.provided.owner) for d in llm.built.decisions if d.hook == "logits_processor"]
        (sampler,) = [d.offer.name for d in llm.built.decisions if d.hook == "sampler"]
    assert made == [("logits_processor", name, "dummy-extras 1.0") for name in ("sharpen", "no-repeat")]
    assert sampler in ("reference", "native")


def test_where_nothing_is_left_the_processor_is_left_out(folder, extras):
    wanted = params(1, allowed_token_ids=[7, 8], extra_args={"no_repeat": 2})
    with LLM(folder, dtype="float32", logits_processors=["no-repeat"]) as llm:
        (got,) = tokens(llm, asks(1), wanted)
    assert set(got) == {7, 8}


def test_a_processor_named_twice_is_refused(folder, extras):
    with pytest.raises(SettingError, match="names 'sharpen' twice"):
        LLM(folder, dtype="float32", logits_processors=["sharpen", "sharpen"])


def test_a_plugin_that_is_not_named_is_not_asked(folder, extras, plain):
    with LLM(folder, dtype="float32") as llm:
        assert not [d for d in llm.built.decisions if d.hook == "logits_processor"]
        assert tokens(llm, asks(8), params(8)) == plain
    assert all(a != b for a, b in pairwise(plain))


SAMPLER = """
from vllm_core.plugin import Offer, Provides, Rank, hookimpl
HOOK_API = 1

@hookimpl
def provides(): return [Provides("sampler", "least", "the opposite")]

@hookimpl
def sampler(query):
    return Offer(name="least", target="{module}_impl:Least", rank=Rank.TUNED, options={"vocab": query.vocab_size})
"""
LEAST = """
class Least:
    def __init__(self, query):
        assert query.options["vocab"] == query.vocab_size

    def __call__(self, logits, params):
        assert len(params.temperature) == len(params.noise) == len(logits)
        return logits.argmin(-1)

    def probs(self, logits, params):
        return logits.new_zeros(logits.shape).scatter_(1, logits.argmin(-1, keepdim=True), 1.0)
"""


def test_a_sampler_that_is_preferred_draws_the_tokens(folder, model, tmp_path, monkeypatch):
    from tests.plugins.dummies import Site

    site = tmp_path / "samplers"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    module = Site(site).install("least", SAMPLER)
    site.joinpath(f"{module}_impl.py").write_text(LEAST)
    with LLM(folder, dtype="float32", plugins={"prefer": {"sampler": ["least"]}}) as llm:
        (got,) = tokens(llm, asks(1), SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    (ask,) = asks(1)
    known = ask["prompt_token_ids"]
    with torch.inference_mode():
        for token in got:
            assert int(model(torch.tensor([known])).logits[0, -1].argmin()) == token
            known = [*known, token]
