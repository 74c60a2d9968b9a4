"""One setting off and on, and a trace without overlap and with it. What is measured is made up."""

import json
from types import SimpleNamespace

import pytest

from tests.loading.checkpoints import tiny_model, write
from vllm_core.cli.bench import trace
from vllm_core.cli.bench.compare import EXECUTOR, compare
from vllm_core.cli.bench.trace import Span
from vllm_core.config.engine import EngineSettings


def test_a_setting_is_measured_off_and_on_and_on_is_set_beside_off(capsys):
    seen = []

    def measure(wanted, flag):
        seen.append((wanted.batch_invariant, flag))
        return {"speed": 90.0 if wanted.batch_invariant else 100.0}

    found = compare("batch-invariant", EngineSettings(model="M"), measure, lambda one: {"tokens/s": one["speed"]})
    assert seen == [(False, "--no-batch-invariant"), (True, "--batch-invariant")]
    assert found["figures"] == {"tokens/s": {"off": 100.0, "on": 90.0, "ratio": 0.9}}
    assert (found["compare"], found["on"]) == ("batch_invariant", {"speed": 90.0})
    out = capsys.readouterr().out
    assert out.split() == [
        "batch_invariant", "off:", "batch_invariant", "on:", "batch_invariant", "off", "on", "on", "/", "off",
        "tokens/s", "100", "90", "0.9",
    ]  # fmt: skip


def test_an_executor_is_measured_beside_another(capsys):
    seen = []

    def measure(wanted, flag):
        seen.append((wanted.distributed_executor_backend, flag))
        return {"speed": 97.0 if wanted.distributed_executor_backend == "mp" else 100.0}

    given = "distributed-executor-backend=in-process,mp"
    found = compare(given, EngineSettings(model="M"), measure, lambda one: {"tokens/s": one["speed"]})
    flag = "--distributed-executor-backend="
    assert seen == [("in-process", f"{flag}in-process"), ("mp", f"{flag}mp")]
    assert found["figures"] == {"tokens/s": {"off": 100.0, "on": 97.0, "ratio": 0.97}}
    assert found["sides"] == ["in-process", "mp"]
    out = capsys.readouterr().out
    assert out.splitlines()[3].split() == [EXECUTOR, "in-process", "mp", "mp", "/", "in-process"]


@pytest.mark.parametrize("given", ["", "=mp", "=mp,", "=a,b,c"])
def test_two_executors_are_compared_and_no_other_number(run, given):
    code, _, err = run("bench", "throughput", "M", "--compare", f"distributed-executor-backend{given}")
    assert code == 2
    assert "two executors are compared" in err
    assert "distributed-executor-backend=in-process,mp" in err


@pytest.mark.slow
def test_throughput_compares_a_process_of_a_ranks_own_with_none(run, tmp_path):
    model = str(write(tmp_path / "tiny", tiny_model()))
    words = ("--num-prompts", "2", "--num-iters", "1", "--input-len", "4", "--output-len", "5", "--dtype", "float32")
    how = ("--compare", "distributed-executor-backend=in-process,mp", "--output-json", "it.json")
    code, _, err = run("bench", "throughput", model, *words, *how)
    assert code == 0, err
    found = json.loads((tmp_path / "work" / "it.json").read_text())
    ran = [found[side]["settings"]["distributed_executor_backend"] for side in ("off", "on")]
    assert ran == ["in-process", "mp"]
    assert all(row["ratio"] for row in found["figures"].values())


@pytest.mark.parametrize("command", ["throughput", "workloads"])
@pytest.mark.parametrize("name", ["batch-invarian", "seed", "max_model_len", "batch-invariant=1"])
def test_only_a_setting_that_is_on_or_off_can_be_compared(run, command, name):
    code, _, err = run("bench", command, "M", "--compare", name)
    assert code == 2
    assert f"--compare {name}: that is no setting that is on or off" in err
    assert "batch_invariant, " in err
    assert "async_scheduling" in err


def test_throughput_and_workloads_compare_a_setting_on_a_real_engine(run, tmp_path):
    model = str(write(tmp_path / "tiny", tiny_model()))
    small = ("--num-prompts", "2", "--num-iters", "1", "--input-len", "4", "--output-len", "5")
    words = ("--dtype", "float32", "--max-num-seqs", "4", "--output-json", "it.json")
    for command, more, title in (
        ("throughput", small, "one stream, tokens/s"), ("workloads", ("--scale", "0.02", "--only", "w4"), "w4 batch"),
    ):  # fmt: skip
        code, out, err = run("bench", command, model, *more, *words, "--compare", "batch-invariant")
        assert code == 0, err
        found = json.loads((tmp_path / "work" / "it.json").read_text())
        assert [found[side]["settings"]["batch_invariant"] for side in ("off", "on")] == [False, True]
        row = next(row for name, row in found["figures"].items() if name.startswith(title))
        assert row["ratio"] == pytest.approx(row["on"] / row["off"])
        assert title in out


@pytest.fixture
def traced(monkeypatch, tmp_path):
    """A device on which each kernel runs 10 us, and then nothing for 40 us, or 5 with overlap."""
    write(tmp_path / "tiny", tiny_model())
    engines = []
    real = trace.engine

    def engine(wanted):
        engines.append(wanted.async_scheduling)
        return real(wanted)

    def spans(work):
        work()
        every = 15 if engines[-1] else 50
        return [Span("k", i * every, i * every + 10) for i in range(40)]

    monkeypatch.setattr(trace, "engine", engine)
    monkeypatch.setattr(trace, "_traced", spans)
    monkeypatch.setattr(trace, "_has_cuda", lambda: True)
    return SimpleNamespace(engines=engines, model=str(tmp_path / "tiny"))


def test_a_trace_of_both_says_what_the_device_waits_without_overlap_and_with_it(run, traced, tmp_path):
    words = ("--dtype", "float32", "--batch-size", "2", "--input-len", "4", "--output-len", "6")
    code, out, err = run("bench", "trace", traced.model, *words, "--both", "--output-json", "it.json")
    assert code == 0, err
    assert traced.engines == [False, True]
    found = json.loads((tmp_path / "work" / "it.json").read_text())
    # 20 kernels are counted, with 19 gaps.
    assert found["without_overlap"]["idle_share"] == pytest.approx(19 * 40 / (19 * 50 + 10))
    assert found["with_overlap"]["idle_us"] == 19 * 5
    assert (found["without_overlap"]["gaps_over_20_us"], found["with_overlap"]["gaps_over_20_us"]) == (19, 0)
    assert found["with_overlap"]["settings"]["async_scheduling"] is True
    assert "   without overlap      with overlap\nidle" in out
    assert out.count("working") == 2


def test_a_trace_of_both_refuses_the_setting_that_it_changes(run, traced):
    code, _, err = run("bench", "trace", traced.model, "--both", "--no-async-scheduling")
    assert code == 2
    assert "--both measures async_scheduling off and on, so it cannot be given" in err
    assert not traced.engines
