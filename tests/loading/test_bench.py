"""``vllm-core bench`` on a tiny model: that it runs, what its results hold, what it refuses. No figure is judged."""

import json
import sys

import pytest

from vllm_core.cli import main
from vllm_core.cli.bench import startup, versus

SMALL = ("--input-len", 5, "--output-len", 4)
FAKE_VLLM = """
__version__ = "9.9"
class Out:
    def __init__(self, n): self.outputs = [self]; self.token_ids = [7] * n
class SamplingParams:
    def __init__(self, temperature, max_tokens, ignore_eos):
        assert temperature == 0 and ignore_eos
        self.max_tokens = max_tokens
class LLM:
    def __init__(self, model, **settings):
        assert settings["enable_prefix_caching"] is False, settings
        if settings.pop("fails", False): raise OSError("no such device")
    def generate(self, prompts, params, use_tqdm):
        assert all(p["prompt_token_ids"] for p in prompts)
        return [Out(p.max_tokens) for p in params]
"""


@pytest.fixture
def bench(capsys, tmp_path):
    """``bench("latency", ...)`` -> (exit code, result, standard error)."""

    def call(*words):
        file = tmp_path / "result.json"
        code = main(["bench", *map(str, words), "--output-json", str(file)])
        err = capsys.readouterr().err
        return code, json.loads(file.read_text()) if file.exists() else {}, err

    return call


def of_engine(result):
    """Whether the result says who was measured, with what, on what."""
    records = result["lock"]["records"]
    assert len(result["lock"]["digest"]) == 64
    assert {"model", "attention_backend"} <= {record["kind"] for record in records}
    assert result["settings"]["dtype"] == "float32"
    assert result["hardware"]["usable_cores"] >= 1
    assert result["hardware"]["devices"][0]["type"] == "cpu"
    assert result["versions"].keys() == {"vllm_core", "python", "torch", "threads"}
    assert result["start_seconds"].keys() >= {"plugins", "weights", "bind"}
    assert result["peak_memory_bytes"] > 50 << 20
    return True


def test_throughput_gives_vllms_keys_and_what_was_measured(bench, folder):
    code, result, err = bench("throughput", folder, *SMALL, "--num-prompts", 3, "--num-iters", 2, "--max-num-seqs", 2)
    assert code == 0, err
    assert (result["num_requests"], result["total_num_tokens"]) == (3, 3 * 9)
    assert result["requests_per_second"] == pytest.approx(3 / result["elapsed_time"])
    assert result["tokens_per_second"] == pytest.approx(27 / result["elapsed_time"])
    assert len(result["elapsed_times"]) == 2
    assert result["first_token_seconds"]["p99"] <= result["request_seconds"]["p99"]
    assert of_engine(result)
    assert result["settings"]["max_num_seqs"] == 2
    assert result["settings"]["enable_prefix_caching"] is False


def test_prefix_caching_is_on_if_asked_for(bench, folder):
    words = ("--model", folder, *SMALL, "--num-prompts", 1, "--num-iters", 1, "--enable-prefix-caching")
    assert bench("throughput", *words)[1]["settings"]["enable_prefix_caching"] is True


def test_prompts_can_come_from_a_file(bench, folder, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("The capital of France\n\nOnce upon a time\n")
    code, result, err = bench("throughput", folder, "--dataset-path", file, "--output-len", 3, "--num-iters", 1)
    assert code == 0, err
    assert (result["num_requests"], result["total_output_tokens"]) == (2, 6)
    assert result["workload"]["dataset"] == "custom"


def test_latency_gives_vllms_keys_and_one_stream(bench, folder):
    code, result, err = bench("latency", folder, *SMALL, "--batch-size", 2, "--num-iters", 2, "--num-iters-warmup", 0)
    assert code == 0, err
    assert result["avg_latency"] == pytest.approx(sum(result["latencies"]) / 2)
    assert result["percentiles"].keys() == {"10", "25", "50", "75", "90", "99"}
    assert result["one_stream"]["stream_len"] == 4
    assert len(result["one_stream"]["seconds_for_1"]) == len(result["one_stream"]["seconds_for_all"]) == 2
    assert of_engine(result)


@pytest.mark.slow
def test_startup_starts_fresh_processes_cold_and_warm(bench, folder, monkeypatch):
    seen = []
    real = startup.start
    monkeypatch.setattr(startup, "start", lambda words, env=None: seen.append(env) or real(words, env))
    counts = ("--num-iters-cold", 1, "--num-iters-warm", 1, "--num-iters-warmup", 0)
    code, result, err = bench("startup", folder, *counts, "--max-model-len", 64, "--no-async-scheduling")
    assert code == 0, err
    for phase in ("cold", "warm"):
        assert len(result[f"{phase}_startup_times"]) == len(result[f"{phase}_first_token_times"]) == 1
        assert result[f"avg_{phase}_startup_time"] < result[f"avg_{phase}_first_token_time"]
        assert result[f"{phase}_first_token_times"] < result[f"{phase}_process_times"]
        assert result[f"{phase}_startup_percentiles"].keys() == {"10", "25", "50", "75", "90", "99"}
        assert result[f"avg_{phase}_compilation_time"] == 0
        assert result[f"{phase}_stages"].keys() >= {"plugins", "tokenizer", "weights"}
        assert result[f"{phase}_startup_times"] < result[f"{phase}_ready_times"] < result[f"{phase}_first_token_times"]
    assert seen[0]["XDG_CACHE_HOME"] not in (None, "")
    assert seen[1] == seen[0]  # a warm start finds what the cold one has left
    assert of_engine({**result, "start_seconds": result["warm_stages"]})
    assert (result["settings"]["max_model_len"], result["settings"]["async_scheduling"]) == (64, False)


@pytest.fixture
def started(monkeypatch):
    """A start that took 2 s; real ones: the test above."""
    found = {"first_token_seconds": 2.0, "start_seconds": {"weights": 1.0}}
    monkeypatch.setattr(startup, "start", lambda words: found)


@pytest.fixture
def fake_vllm(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vllm.py").write_text(FAKE_VLLM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("LD_PRELOAD", "")


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["vllm", "transformers"])
def test_a_peer_gets_the_same_workload_and_is_set_beside(bench, folder, started, fake_vllm, peer):
    words = (*SMALL, "--num-prompts", 3, "--num-iters", 2, "--vs", peer, "--max-num-seqs", 2)
    code, result, err = bench("throughput", folder, *words, "--vs-python", sys.executable)
    assert code == 0, err
    beside = result["versus"]
    assert beside["peer"] == peer
    assert len(beside["elapsed_times"]) == 2
    assert len(beside["seconds_for_1"]) == len(beside["seconds_for_all"]) == versus.RUNS
    figures = beside["figures"]
    assert figures.keys() == {
        "first token of a script, s", "output tokens/s", "one stream, tokens/s", "peak memory, MiB"
    }  # fmt: skip
    assert figures["first token of a script, s"]["own"] == 2.0
    for row in figures.values():
        assert row["ratio"] is None or row["ratio"] == pytest.approx(row["own"] / row["peer"])
    assert figures["output tokens/s"]["own"] == result["output_tokens_per_second"]
    assert figures["peak memory, MiB"]["peer"] > 5


def test_a_peer_that_fails_is_an_error_with_its_reason(bench, folder, started, fake_vllm):
    words = (*SMALL, "--num-prompts", 1, "--num-iters", 1, "--vs", "vllm", "--vs-args", '{"fails": true}')
    code, result, err = bench("throughput", folder, *words)
    assert (code, result) == (1, {})
    assert "vllm failed with exit code 1" in err
    assert "\n  why     OSError: no such device\n  instead --vs-model" in err


def test_the_hosts_part_of_a_step_is_measured_by_stage(bench):
    code, result, _ = bench("step", "--max-num-seqs", 4, "--num-iters", 3, "--num-drafts", "0,2")
    assert code == 0
    assert result["milliseconds"].keys() == {"0", "2"}
    assert result["milliseconds"]["2"].keys() == {"schedule", "retire", "prepare"}
    assert all(figures["p50"] > 0 for figures in result["milliseconds"]["0"].values())
    assert result["hardware"]["cpu"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("throughput",), "no model was named"),
        (("throughput", "M", "--model", "M"), "the model was given twice"),
        (("throughput", "M", "--num-prompts", 0), "--num-prompts must be at least 1, not 0"),
        (("throughput", "M", "--num-promts", 4), 'did you mean "--num-prompts"?'),
        (("throughput", "M", "--random-range-ratio", 1), "--random-range-ratio must be at least 0 and below 1"),
        (("throughput", "M", "--dataset-name", "sharegpt"), "known   random, custom"),
        (("throughput", "M", "--dataset-name", "custom"), "--dataset-path goes with --dataset-name custom"),
        (("throughput", "M", "--vs-python", "x"), "--vs-python goes with --vs"),
        (("throughput", "M", "--vs", "vlm"), 'did you mean "vllm"?'),
        (("throughput", "M", "--vs", "vllm", "--vs-python", "/no/python"), "instead --vs-python PYTHON"),
        (("throughput", "M", "--vs", "transformers", "--vs-args", "[1]"), "--vs-args must be a JSON table"),
        (("throughput", "M", "--vs", "transformers", "--vs-args", "{"), "--vs-args must be JSON"),
        (("throughput", "M", "--max-num-seqs", 0), "max_num_seqs must be at least 1"),
        (("latency", "M", "--batch-size", 0), "--batch-size must be at least 1, not 0"),
        (("startup", "M", "--num-iters-warm", 0), "--num-iters-warm must be at least 1, not 0"),
        (("step", "--num-drafts", "many"), "--num-drafts must be from 0 to 64, as in 0,3"),
        (("step", "--num-iters", 0), "--num-iters must be from 1"),
        (("thruput",), 'did you mean "throughput"?'),
    ],
)
def test_a_wrong_call_is_refused_before_a_model_is_loaded(bench, words, message):
    code, result, err = bench(*words)
    assert (code, result) == (2, {})
    assert message in err


def test_a_workload_that_does_not_fit_is_refused_with_what_would(bench, folder):
    code, _, err = bench("throughput", folder, "--max-model-len", 32, "--input-len", 30, "--output-len", 10)
    assert code == 2
    assert "30 input and 10 output tokens are longer than the 32 that fit" in err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "is not valid JSON"),
        ("x.json", "{}", "holds no list of prompts"),
        ("x.json", '[["a"]]', "entry 0 of"),
        ("x.jsonl", '{"prompt": "a"}\n{"promt": "b"}', "entry 1 of"),
        ("x.txt", "\n", "holds no list of prompts"),
    ],
)
def test_a_wrong_file_of_prompts_is_refused(bench, folder, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    code, _, err = bench("throughput", folder, "--dataset-path", tmp_path / name)
    assert code == 2
    assert message in err


def test_a_result_that_cannot_be_written_is_refused_first(folder, capsys):
    assert main(["bench", "latency", str(folder), "--output-json", "/no/such/folder/x.json"]) == 2
    assert "there is no folder /no/such/folder" in capsys.readouterr().err


def test_six_workloads_have_a_figure_each_and_the_record(bench, folder):
    code, result, err = bench("workloads", folder, "--scale", 0.02, "--max-num-seqs", 8)
    assert code == 0, err
    assert list(result["workloads"]) == ["w1", "w2", "w3", "w4", "w5", "w6"]
    assert all(figure["value"] > 0 and figure["runs"] for figure in result["workloads"].values())
    assert result["workloads"]["w3"]["input_len"] == 164
    assert of_engine(result)
    assert result["settings"]["enable_prefix_caching"] is True
    assert result["device_memory_bytes"] == {}  # a CPU's is the host's
    assert result["memory_bytes"]["activations"] > 0


def test_some_workloads_run_beside_a_peer_with_random_weights(bench, folder):
    words = ("--scale", 0.02, "--only", "w2,w5", "--load-format", "dummy", "--skip-tokenizer-init")
    code, result, err = bench("workloads", folder, *words, "--vs", "transformers")
    assert code == 0, err
    figures = result["versus"]["figures"]
    assert [name.split()[0] for name in figures] == ["start", "w2", "w5"]
    assert all(row["own"] > 0 and row["peer"] > 0 for row in figures.values())
    assert result["versus"]["workloads"].keys() == {"w2", "w5"}


def test_workloads_that_do_not_fit_or_are_unknown_are_refused(bench, folder):
    code, _, err = bench("workloads", folder, "--scale", 0.1, "--max-model-len", 64)
    assert code != 0
    assert "w3 has requests of 823 tokens; the engine takes 64" in err
    assert "there is no such workload" in bench("workloads", folder, "--only", "w9")[2]
    assert "--scale must be" in bench("workloads", folder, "--scale", 0)[2]


def test_a_peer_gets_its_own_environment_and_the_engines_own_weights(bench, folder, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vllm.py").write_text(
        FAKE_VLLM.replace(
            "def __init__(self, temperature, max_tokens, ignore_eos):",
            "def __init__(self, temperature, max_tokens, ignore_eos, detokenize):\n        assert detokenize is False",
        )
        .replace("assert temperature == 0 and ignore_eos", "assert ignore_eos")
        .replace(
            'assert settings["enable_prefix_caching"] is False, settings',
            'assert settings["enable_prefix_caching"] and settings["load_format"] == "dummy", settings',
        )
    )
    words = ("--scale", 0.02, "--only", "w2", "--load-format", "dummy", "--skip-tokenizer-init", "--vs", "vllm")
    refused = bench("workloads", folder, *words)
    assert "vllm cannot be run by" in refused[2]
    code, result, err = bench("workloads", folder, *words, "--vs-env", f"PYTHONPATH={tmp_path / 'site'}")
    assert code == 0, err
    assert result["versus"]["version"] == "9.9"
    assert "--vs-env must be NAME=VALUE" in bench("workloads", folder, *words, "--vs-env", "PATH")[2]


def test_latency_runs_beside_a_peer(bench, folder):
    words = (*SMALL, "--num-iters", 1, "--num-iters-warmup", 0, "--batch-size", 2, "--vs", "transformers")
    code, result, err = bench("latency", folder, *words)
    assert code == 0, err
    figures = result["versus"]["figures"]
    assert figures.keys() == {
        "first token of a script, s",
        "output tokens/s",
        "one stream, tokens/s",
        "peak memory, MiB",
    }
    assert figures["output tokens/s"]["ratio"] > 0
