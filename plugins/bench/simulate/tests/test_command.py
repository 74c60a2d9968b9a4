"""``vllm-core bench simulate`` as a person uses it, and what it refuses."""

import json
import subprocess
import sys

import pytest
from vllm_plugin_simulate.command import Simulate
from vllm_plugin_simulate.requests import read_trace
from vllm_plugin_simulate.shapes import known_models, read_shapes

from vllm_core.cli.__main__ import main
from vllm_core.commands import UsageError

SMALL = ["--model", "qwen3-0.6b", "--input-len", "64", "--output-len", "8", "--num-prompts", "8"]


def simulate(*words):
    return main(["bench", "simulate", *map(str, words)])


def test_it_joins_bench_and_imports_no_torch():
    code = (
        "import sys; from vllm_core.cli.__main__ import main\n"
        f"code = main(['bench', 'simulate', *{SMALL!r}])\n"
        "sys.exit(code or ('torch' in sys.modules and 'torch was imported'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Output token throughput" in done.stdout


def test_figures_have_the_names_of_bench_serve(tmp_path, capsys):
    file = tmp_path / "result.json"
    assert simulate(*SMALL, "-dp", 2, "--request-rate", 50, "--output-json", file) == 0
    found = json.loads(file.read_text())
    expected = {"duration", "completed", "total_input_tokens", "total_output_tokens", "request_throughput"}
    expected |= {"output_throughput", "total_token_throughput"}
    expected |= {f"{what}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for what in ("mean", "median", "p99")}
    assert expected <= set(found)
    assert (found["completed"], found["gpus"]) == (8, 2)
    assert found["hardware"]["measured"] is True
    assert "P99 TTFT (ms):" in capsys.readouterr().out


def test_a_config_file_is_a_model_like_any_other(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(known_models()["qwen3-0.6b"]))
    assert simulate("--model", tmp_path, *SMALL[2:]) == 0
    of_file = capsys.readouterr().out
    assert simulate(*SMALL) == 0
    assert capsys.readouterr().out == of_file


def test_a_trace_is_played_as_it_was_recorded(tmp_path, capsys):
    trace = tmp_path / "requests.jsonl"
    trace.write_text(
        '{"arrival": 7.5, "input_tokens": 20, "output_tokens": 4}\n'
        '{"timestamp": 7, "input_length": 10, "output_length": 2}\n'
    )
    first, second = read_trace(trace, None, None)
    assert (first.arrival, first.input_tokens, second.arrival, second.output_tokens) == (0, 10, 0.5, 4)
    assert simulate("--model", "qwen3-0.6b", "--trace", trace) == 0
    assert "Total input tokens:                      30" in capsys.readouterr().out


def test_lengths_without_arrivals_come_at_a_rate(tmp_path):
    lengths = tmp_path / "lengths.jsonl"
    lengths.write_text('{"prompt_len": 5, "output_len": 2}\n{"prompt_len": 6, "output_len": 3}\n')
    sketches = read_trace(lengths, 2.0, 4)
    assert [one.input_tokens for one in sketches] == [5, 6, 5, 6]
    assert sketches[-1].arrival == pytest.approx(2.0)
    with pytest.raises(UsageError, match=r"line 1 .* has no arrival"):
        read_trace(lengths, None, None)


@pytest.mark.parametrize("arrival", ['"soon"', "-1", "NaN"])
def test_a_trace_with_a_time_that_is_none_is_refused_with_its_line(tmp_path, arrival):
    trace = tmp_path / "t.jsonl"
    trace.write_text(f'{{"arrival": {arrival}, "input_tokens": 1, "output_tokens": 1}}\n')
    with pytest.raises(UsageError, match=r"line 1 .*arrival must be"):
        read_trace(trace, None, None)


def test_a_plan_names_the_fewest_gpus_and_what_misses_the_goal(capsys):
    words = ["--model", "qwen3-0.6b", "--input-len", 64, "--output-len", 8, "--max-num-seqs", 8, "--max-gpus", 1000]
    words += ["--gpus-per-host", 1, "--num-prompts", 64]
    assert simulate(*words, "--request-rate", 2000, "--plan", "--goal", "tpot:3") == 0
    lines = capsys.readouterr().out.splitlines()
    gpus, tp, pp, dp = (int(cell) for cell in lines[1].split()[:4])
    assert gpus == tp * pp * dp
    assert 1 < gpus < 1000
    assert simulate(*words, "--request-rate", 200, "--plan", "--goal", "tpot:0.01") == 1
    assert "tpot" in capsys.readouterr().out


def test_a_model_that_does_not_fit_says_what_would():
    with pytest.raises(UsageError) as error:
        run("--model", "llama-3.1-70b", "-tp", "1")
    text = str(error.value)
    assert "--tensor-parallel-size 2 --pipeline-parallel-size 1" in text
    run("--model", "llama-3.1-70b", "-tp", "2", "--num-prompts", "1", "--output-len", "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], "neither such a model nor such a file"),
        (["--model", "qwen3-0.6b", "-tp", "3"], "16 attention heads do not divide into 3 ranks"),
        (["--model", "qwen3-0.6b", "-pp", "29"], "28 layers do not fill 29 stages"),
        (["--model", "qwen3-0.6b", "-dp", "10001"], "up to 10,000"),
        (["--model", "qwen3-0.6b", "--hardware", "h999"], "known   h200"),
        (["--model", "qwen3-0.6b", "--link", "string"], "450GB/s,3us"),
        (["--model", "qwen3-0.6b", "--dtype", "float32"], "not measured"),
        (["--model", "qwen3-0.6b", "--workloads", "w9"], "no such workload"),
        (["--model", "qwen3-0.6b", "--workloads", "w1", "-dp", "65"], "simulate every engine"),
        (["--model", "qwen3-0.6b", "--plan"], "--request-rate RATE"),
        (["--model", "qwen3-0.6b", "--goal", "ttft:1"], "goes with --plan"),
        (["--model", "qwen3-0.6b", "--plan", "--request-rate", "1", "--goal", "ttfft:1"], "figures are ttft"),
        (["--model", "qwen3-0.6b", "--input-len", "50000"], "was made for 40,960"),
        (["--model", "qwen3-0.6b", "--num-prompts", "0"], "at least 1"),
        ([], "no model was named"),
    ],
)
def test_wrong_words_are_refused_with_what_would_do(words, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        run(*words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 128}, "experts"),
        ({"architectures": ["GPTNeoXForCausalLM"]}, "GPTNeoXForCausalLM"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
        ({"sliding_window": 4096}, "window"),
        ({"hidden_size": "large"}, "hidden_size must be a whole number"),
    ],
)
def test_models_that_it_cannot_simulate_are_refused_with_the_reason(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(known_models()["qwen3-0.6b"] | change))
    with pytest.raises(UsageError, match=message):
        read_shapes(str(tmp_path))


def test_hardware_of_ones_own_says_only_what_differs(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text('[gpu.mine]\nlike = "h200"\nsource = "made up"\nbandwidth = 8.6e12\n')
    run("--hardware", str(own), *SMALL)
    own.write_text('[gpu.mine]\nlike = "h200"\nbandwith = 8.6e12\n')
    with pytest.raises(UsageError, match="does not know bandwith"):
        run("--hardware", str(own), *SMALL)


def run(*words):
    import argparse

    parser = argparse.ArgumentParser()
    command = Simulate()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))
