"""Requests through a pipeline of stages get the tokens they get from one rank, whatever happens on the way."""

from __future__ import annotations

import pytest

from tests.distributed.pipeline import Ask, engine_on, greedy, prompt, run, tokens
from vllm_core.engine.sampling_params import SamplingParams

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
SAME = prompt(20, seed=9)  # a prefix that several share
REPEATS = tuple(prompt(5, seed=3) * 5)

MIXED = [
    Ask(prompt(5), greedy(20)),
    Ask(prompt(33, seed=1), greedy(9)),
    Ask(prompt(1, seed=2), SamplingParams(temperature=0.9, seed=5, max_tokens=15, ignore_eos=True)),
    Ask((*SAME, 7, 8), greedy(6)),
    Ask(REPEATS, greedy(16), at=2),
    Ask((*SAME, 9), SamplingParams(temperature=1.1, top_k=7, top_p=0.8, seed=1, max_tokens=12, ignore_eos=True), at=9),
    Ask(prompt(12, seed=4), greedy(12, repetition_penalty=1.3, presence_penalty=0.5), at=4),
    Ask(prompt(9, seed=5), SamplingParams(n=3, temperature=0.8, seed=2, max_tokens=7, ignore_eos=True), at=6),
    Ask(SAME, greedy(1), at=3),
    # Of few tokens, so that guesses are often right, and often wrong.
    Ask(prompt(4, seed=6), greedy(24, allowed_token_ids=[3, 4]), at=1),
    Ask(
        prompt(4, seed=7),
        SamplingParams(temperature=1.0, seed=3, max_tokens=24, ignore_eos=True, allowed_token_ids=[5, 6, 7]),
        at=5,
    ),
]
LONG = [Ask(prompt(9 + i, seed=40 + i), greedy(45)) for i in range(3)] + [
    Ask(prompt(7 + i, seed=50 + i), greedy(40, allowed_token_ids=[3, 4, 9 + i])) for i in range(3)
]


@pytest.fixture(scope="module")
def alone(folders):
    """model -> what one rank gives for MIXED."""
    found = {}
    for name, folder in folders.items():
        with engine_on(folder) as engine:
            found[name] = tokens(run(engine, MIXED))
    return found


@pytest.mark.parametrize("model", ["llama", "tied llama", "gemma with windows"])
@pytest.mark.parametrize("stages", [2, 3])
def test_mixed_requests_get_what_one_rank_gives(folders, alone, model, stages):
    with engine_on(folders[model], stages) as engine:
        outputs = run(engine, MIXED)
        assert tokens(outputs) == alone[model]
        assert engine.core.capacity.stages == stages
        layers = [runner.model.layers.owned for runner in engine.core.executor.runners]
        assert [i for owned in layers for i in owned] == list(range(4))
    assert sum(output.num_cached_tokens for output in outputs) > 0


SETTINGS = {
    "one step at a time": {"async_scheduling": False},
    "chunks of prompts": {"max_num_batched_tokens": 12},
    "no shared prefixes": {"enable_prefix_caching": False},
    "layers as somebody chose": {"pipeline_layers": "3,1"},
    "guesses": {"speculative_config": NGRAM},
    "guesses and chunks": {"speculative_config": NGRAM, "max_num_batched_tokens": 12},
    "guesses, one step at a time": {"speculative_config": NGRAM, "async_scheduling": False},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_no_setting_changes_a_token(folder, alone, settings):
    with engine_on(folder, 2, **settings) as engine:
        outputs = run(engine, MIXED)
        assert tokens(outputs) == alone["llama"]
    if "speculative_config" in settings:
        assert sum(output.metrics.num_accepted_drafts for output in outputs) > 20
        assert sum(o.metrics.num_drafts - o.metrics.num_accepted_drafts for o in outputs) > 20


def test_guesses_over_three_stages_change_no_token_of_a_model_with_windows(folders, alone):
    with engine_on(folders["gemma with windows"], 3, speculative_config=NGRAM) as engine:
        outputs = run(engine, MIXED)
    assert tokens(outputs) == alone["gemma with windows"]
    assert sum(output.metrics.num_accepted_drafts for output in outputs) > 10


@pytest.mark.parametrize(("stages", "last"), [(2, 2), (3, 1)])
def test_a_draft_model_with_caches_of_its_own_guesses_on_the_last_stage(folder, alone, stages, last):
    """The served model guesses for itself: as much is accepted as on one rank, unless its cache lacks something."""
    itself = {"method": "draft_model", "model": str(folder), "num_speculative_tokens": 3}
    with engine_on(folder, stages, speculative_config=itself, max_num_batched_tokens=40) as engine:
        outputs = run(engine, MIXED)
        assert tokens(outputs) == alone["llama"]
        assert [len(runner.pages) for runner in engine.core.executor.runners][-1] == last + 4
    with engine_on(folder, speculative_config=itself, max_num_batched_tokens=40) as engine:
        single = run(engine, MIXED)
    accepted = [sum(output.metrics.num_accepted_drafts for output in found) for found in (outputs, single)]
    assert accepted[0] >= 0.9 * accepted[1] > 50


@pytest.mark.parametrize("stages", [1, 2])
def test_a_draft_model_is_shared_among_tensor_ranks_as_the_served_model_is(folder, alone, stages):
    itself = {"method": "draft_model", "model": str(folder), "num_speculative_tokens": 3}
    with engine_on(folder, stages, tensor=2, speculative_config=itself) as engine:
        outputs = run(engine, MIXED)
    assert tokens(outputs) == alone["llama"]
    assert sum(output.metrics.num_accepted_drafts for output in outputs) > 50


@pytest.mark.parametrize("drafts", [{}, {"speculative_config": NGRAM}], ids=["plain", "guesses"])
@pytest.mark.parametrize("stages", [2, 3])
def test_preempted_requests_get_the_same_tokens(folder, stages, drafts):
    with engine_on(folder) as engine:
        want = tokens(run(engine, LONG))
        page = engine.core.capacity.caches.bytes_per_page  # of all layers
    # A cache for a sequence and a bit in the stage that has most layers.
    small = {"kv_cache_memory": 14 * page, "enable_prefix_caching": False}
    with engine_on(folder, stages, max_num_batched_tokens=24, **small, **drafts) as engine:
        outputs = run(engine, LONG)
        assert tokens(outputs) == want
    assert sum(output.metrics.num_preemptions for output in outputs) > 2


@pytest.mark.parametrize("drafts", [{}, {"speculative_config": NGRAM}], ids=["plain", "guesses"])
@pytest.mark.parametrize("stages", [2, 3])
def test_requests_aborted_in_flight_leave_others_alone(folder, alone, stages, drafts):
    """Rows and pages of the aborted ones are soon taken by requests that come later."""
    gone = [Ask(prompt(8, seed=20 + i), greedy(30), at=i % 5, abort_at=3 + 2 * i) for i in range(8)]
    with engine_on(folder, stages, max_num_seqs=6, **drafts) as engine:
        outputs = run(engine, [*MIXED, *gone])
    assert tokens(outputs[: len(MIXED)]) == alone["llama"]
    assert {output.outputs[0].finish_reason for output in outputs[len(MIXED) :]} == {"abort"}


def test_many_short_requests_pass_without_taking_a_row_twice(folder):
    """Nothing makes the first stage ask what they sampled; it must not fall behind for ever."""
    asks = [Ask(prompt(3, seed=i), greedy(1), at=i) for i in range(60)]
    found = []
    for stages in (1, 3):
        with engine_on(folder, stages, max_num_seqs=64, async_scheduling=False) as engine:
            found.append(tokens(run(engine, asks)))
            if stages > 1:
                assert max(len(r._sampled) for r in engine.core.executor.runners[:-1]) <= stages
    assert found[0] == found[1]


def test_reports_and_masks_are_the_last_stages_work(folder):
    asks = [
        Ask(prompt(14), greedy(5, logprobs=2, prompt_logprobs=1)),
        Ask(prompt(6, seed=1), greedy(5, logit_bias={7: 3.0}, bad_words=None, allowed_token_ids=list(range(3, 30)))),
        Ask(prompt(4, seed=2), greedy(8, min_tokens=4, stop_token_ids=[3, 5])),
    ]
    found = []
    for stages in (1, 2):
        with engine_on(folder, stages, max_num_batched_tokens=10) as engine:
            outputs = run(engine, asks)
            lines = outputs[0].outputs[0].logprobs, outputs[0].prompt_logprobs
            found.append((tokens(outputs), lines))
    assert found[0][0] == found[1][0]
    for one, two in zip(found[0][1], found[1][1], strict=True):
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert list(a) == list(b)
                for token in a:
                    assert a[token].logprob == pytest.approx(b[token].logprob, abs=1e-4)
                    assert a[token].rank == b[token].rank


def test_tensor_ranks_in_stages_get_the_same_tokens(folders, alone):
    for model in ("tied llama", "gemma with windows"):
        with engine_on(folders[model], 2, 2, speculative_config=NGRAM) as engine:
            assert tokens(run(engine, MIXED)) == alone[model]
