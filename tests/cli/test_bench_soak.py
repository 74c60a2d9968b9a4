"""``vllm-core bench soak``: the mix it draws, the books it keeps, and the growth it fits."""

import json
import random
from itertools import islice

import numpy as np
import pytest

from tests.engine.fake_device import FakeDevice
from tests.engine.harness import make_engine
from tests.loading.checkpoints import tiny_model, write
from vllm_core.cli.bench.growth import MemorySamples, fit_line, resident
from vllm_core.cli.bench.mix import Mix
from vllm_core.cli.bench.soak import _by_minute
from vllm_core.cli.bench.soak_load import Load


def mix(**changes):
    return Mix(**{"vocab_size": 97, "longest": 64, "rows": 4, "text": False, **changes})


def test_a_mix_is_the_same_for_a_seed_and_fits_the_longest_sequence():
    one, again, other = (mix(seed=seed) for seed in (1, 1, 2))
    wishes = [one.wish() for _ in range(300)]
    assert wishes == [again.wish() for _ in range(300)]
    assert wishes != [other.wish() for _ in range(300)]
    assert all(1 <= len(wish.prompt) < len(wish.prompt) + wish.params.max_tokens <= 64 for wish in wishes)
    assert max(len(wish.prompt) + wish.params.max_tokens for wish in wishes) == 64
    assert all(0 <= token < 97 for wish in wishes for token in wish.prompt)


def test_a_mix_has_every_kind_of_request():
    wishes = [wish for m in [mix(text=True, seed=3)] for wish in (m.wish() for _ in range(600))]
    params = [wish.params for wish in wishes]
    for kind in (
        [p.temperature == 0 for p in params],
        [p.temperature > 0 for p in params],
        [p.n > 1 for p in params],
        [bool(p.stop) for p in params],
        [p.logprobs is not None for p in params],
        [p.prompt_logprobs is not None for p in params],
        [p.presence_penalty != 0 for p in params],
        [p.repetition_penalty != 1 for p in params],
        [wish.abort_after is not None for wish in wishes],
        [wish.stream for wish in wishes],
    ):
        assert 10 <= sum(kind) < 600
    starts = [tuple(wish.prompt[:8]) for wish in wishes if len(wish.prompt) > 8]
    assert len(set(starts)) < len(starts) - 50, "no prefixes are shared"


def test_phases_hold_bursts_of_more_than_may_run_and_pauses():
    phases = list(islice(mix(rows=8).phases(), 8))
    assert {phase.name for phase in phases[:4]} == {"quiet", "busy", "burst", "drain"}
    assert all(phase.requests > 8 for phase in phases if phase.at_once)
    assert any(phase.drain for phase in phases[:4])


@pytest.fixture
def engine():
    return make_engine(FakeDevice(num_pages=28, max_rows=4, block_size=4), max_len=64)


class Plain(Mix):
    """Without log-probabilities, which the fake device has none of."""

    def wish(self):
        while True:
            wish = super().wish()
            if wish.params.logprobs is None and wish.params.prompt_logprobs is None:
                return wish


def plain_mix(**changes):
    return Plain(vocab_size=97, longest=64, rows=4, text=False, **changes)


def test_a_load_ends_some_preempts_some_and_loses_nothing(engine):
    load = Load(engine, plain_mix())
    load.run(lambda came: came >= 400)
    assert load.counts["came"] == 400
    assert load.counts["done"] + load.counts["aborted"] == 400
    assert min(load.counts[name] for name in ("done", "aborted", "preemptions", "cached_tokens")) > 0
    assert load.counts["most_at_once"] > 8
    assert load.counts["looks_for_losses"] > 1
    assert (load.counts["lost_pages"], load.counts["lost_rows"], load.failures) == (0, 0, [])
    assert sum(load.tokens.values()) == load.counts["output_tokens"]


def test_a_lost_page_and_a_lost_row_are_found(engine):
    engine.core.roster.free_rows.pop()
    cache = engine.core.cache
    cache.check = lambda: None  # it would tell whose the page is not
    cache.pool.take(3)
    load = Load(engine, plain_mix())
    load.run(lambda came: came >= 20)
    assert (load.counts["lost_pages"], load.counts["lost_rows"]) == (3, 1)


def test_a_request_that_fails_is_told(engine):
    load = Load(engine, plain_mix(seed=5))
    step, broken = engine.step, []

    def fails_once():
        outputs = step()
        for output in outputs:
            if output.finished and not broken:
                output.outputs[0].finish_reason, output.error = "error", "the sky fell"
                broken.append(output.request_id)
        return outputs

    engine.step = fails_once
    load.run(lambda came: came >= 30)
    assert load.counts["failed"] == 1
    assert load.failures == [f"request {broken[0]}: the sky fell"]


def test_a_request_that_comes_to_nothing_is_told(engine):
    load = Load(engine, plain_mix())
    step = engine.step
    engine.step = lambda: step()[1:]  # one output is lost each time
    load.run(lambda came: came >= 10)
    assert "were forgotten" in load.failures[0]


def test_a_line_and_its_error_are_those_of_least_squares():
    draw = random.Random(0)
    x = [i / 60 for i in range(100)]
    y = [3e6 * a + draw.gauss(0, 1e5) for a in x]
    line = fit_line(x, y)
    (slope, _), covariance = np.polyfit(x, y, 1, cov="unscaled")
    left = np.array(y) - np.polyval(np.polyfit(x, y, 1), x)
    assert line.slope == pytest.approx(slope)
    assert line.error == pytest.approx((left @ left / 98 * covariance[0, 0]) ** 0.5)
    assert abs(line.slope - 3e6) < 4 * line.error
    assert fit_line(x[:2], y[:2]) is None
    assert fit_line([1, 1, 1], [1, 2, 3]) is None


def test_growth_is_fitted_after_the_warm_up():
    memory = MemorySamples()
    memory.samples = [{"seconds": s, "resident_bytes": 1e6 * max(s, 60)} for s in range(181)]
    found = memory.growth(60)["resident_bytes"]
    assert found["bytes_per_minute"] == pytest.approx(60e6)
    assert found["standard_error"] == pytest.approx(0, abs=1)
    assert (found["window_seconds"], found["samples"]) == ([60, 180], 121)
    assert memory.growth(0)["resident_bytes"]["bytes_per_minute"] < 60e6
    assert memory.growth(1000) == {}


def test_tokens_a_second_are_those_of_each_minute():
    assert _by_minute({0: 600, 2: 30}, 123.0) == [10, 0, 10]
    assert _by_minute({0: 600}, 60.0) == [10]


def test_resident_memory_is_sampled_at_the_begin_and_the_end():
    with MemorySamples(interval=1000) as memory:
        pass
    assert len(memory.samples) == 2
    assert abs(memory.samples[0]["resident_bytes"] - resident()) < 1 << 30


def test_a_soak_on_a_real_engine_preempts_and_finds_no_problem(run, tmp_path):
    write(tmp_path / "tiny", tiny_model())
    code, out, _ = run(
        "bench", "soak", str(tmp_path / "tiny"), "--dtype", "float32", "--max-num-seqs", "6", "--requests", "120",
        "--max-num-batched-tokens", "64", "--output-json", "soak.json",
    )  # fmt: skip
    assert code == 0, out
    assert "No problem was found." in out
    found = json.loads((tmp_path / "work" / "soak.json").read_text())
    assert found["requests"]["came"] == 120
    assert found["requests"]["done"] + found["requests"]["aborted"] == 120
    assert found["counts"]["preemptions"] > 0
    assert found["free_pages"] == found["pages"]
    assert found["memory_samples"][0]["resident_bytes"] > 0
    assert found["lock"]["digest"]


def test_a_soak_in_which_a_request_fails_is_exit_code_1(run, tmp_path, monkeypatch):
    write(tmp_path / "tiny", tiny_model())
    monkeypatch.setattr("vllm_core.cli.bench.soak_load._problem", lambda *of: "it came to nothing")
    words = ("--dtype", "float32", "--max-num-seqs", "2", "--requests", "3")
    code, out, _ = run("bench", "soak", str(tmp_path / "tiny"), *words)
    assert code == 1
    assert "request 0: it came to nothing" in out
    assert "Problems: 3 requests failed" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--minutes", "0"), "--minutes must be above 0"),
        (("--requests", "-1"), "--requests must be above 0"),
        (("--minutes", "1", "--warm-up-minutes", "1"), "--warm-up-minutes must be below the 1 minutes"),
        (("--cache-sequences", "3", "--kv-cache-memory", "1000000"), "--cache-sequences goes without"),
    ],
)
def test_a_soak_that_makes_no_sense_is_refused(run, tmp_path, words, said):
    code, _, err = run("bench", "soak", str(tmp_path), *words)
    assert code == 2
    assert said in err
