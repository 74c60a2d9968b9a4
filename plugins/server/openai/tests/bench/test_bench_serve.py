"""``vllm-core bench serve`` against a server whose times are known."""

import json

import pytest

SMALL = ("--num-prompts", 6, "--input-len", 8, "--output-len", 4)


def saved(folder):
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_a_run_counts_requests_and_tokens(bench, fake, tmp_path):
    code, out = bench(*SMALL, "--save-result", "--result-dir", tmp_path)
    assert code == 0
    result = saved(tmp_path)
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["total_input_tokens"] == 48
    assert result["total_output_tokens"] == 24
    assert result["output_throughput"] == pytest.approx(24 / result["duration"])
    assert "Successful requests:                     6" in out


def test_the_file_has_vllms_name_and_keys(bench, tmp_path):
    bench(*SMALL, "--save-result", "--result-dir", tmp_path, "--metadata", "gpu=none", "--max-concurrency", 2)
    (path,) = tmp_path.glob("openai-infqps-concurrency2-fake-*.json")
    result = json.loads(path.read_text())
    assert {
        "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate",
        "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens",
        "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
        "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests", "mean_ttft_ms",
        "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "p99_itl_ms",
    } <= set(result)  # fmt: skip
    assert result["gpu"] == "none"
    assert result["request_rate"] == "inf"
    assert "ttfts" not in result


def test_details_are_kept_when_asked_for(bench, tmp_path):
    bench(*SMALL, "--save-result", "--save-detailed", "--result-dir", tmp_path)
    result = saved(tmp_path)
    assert [len(result[key]) for key in ("ttfts", "itls", "errors", "generated_texts", "output_lens")] == [6] * 5
    assert result["generated_texts"][0] == "w w w w "
    assert [len(gaps) for gaps in result["itls"]] == [3] * 6


def test_latencies_are_those_of_the_server(bench, fake, tmp_path):
    fake.first_gap, fake.gap = 0.2, 0.05
    bench("--num-prompts", 1, "--input-len", 8, "--output-len", 5, "--save-result", "--result-dir", tmp_path,
          "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99")  # fmt: skip
    result = saved(tmp_path)
    # A loaded machine makes them longer, nothing makes them shorter.
    assert 200 <= result["p50_ttft_ms"] < 2000
    assert 50 <= result["median_tpot_ms"] < 500
    assert 45 <= result["p50_itl_ms"] < 500
    assert result["mean_e2el_ms"] >= 400


def test_the_first_token_of_a_chat_is_not_its_role(bench, fake, tmp_path):
    fake.gap = 0.1
    bench("--backend", "openai-chat", "--num-prompts", 1, "--input-len", 8, "--output-len", 3, "--save-result",
          "--save-detailed", "--result-dir", tmp_path)  # fmt: skip
    result = saved(tmp_path)
    assert len(result["itls"][0]) == 2
    assert fake.asked[0][1]["messages"][0]["role"] == "user"


def test_no_more_requests_run_at_once_than_allowed(bench, fake):
    fake.gap = 0.01
    assert bench(*SMALL, "--max-concurrency", 2)[0] == 0
    assert fake.most == 2


def test_a_rate_spreads_requests_over_its_time(bench, fake, tmp_path):
    code, _ = bench("--num-prompts", 20, "--input-len", 8, "--output-len", 1, "--request-rate", 40,
                    "--burstiness", "inf", "--save-result", "--result-dir", tmp_path)  # fmt: skip
    assert code == 0
    times = [at for at, *_ in fake.asked]
    assert times[-1] - times[0] >= 19 / 40 * 0.9


def test_all_failed_is_exit_code_1_and_some_failed_is_told(bench, fake, tmp_path):
    fake.mode = "busy"
    code, out = bench(*SMALL)
    assert code == 1
    assert "Failed requests:                         6" in out
    assert "HTTP 503" in out
    fake.mode = "half"
    code, out = bench(*SMALL, "--save-result", "--result-dir", tmp_path)
    assert code == 0
    assert saved(tmp_path)["failed"] == 3
    assert "HTTP 500" in out


@pytest.mark.parametrize(("mode", "word"), [("cut", "in the middle of its answer"), ("error", "the engine died")])
def test_a_stream_that_breaks_is_a_failure(bench, fake, mode, word):
    fake.mode = mode
    code, out = bench(*SMALL)
    assert code == 1
    assert word in out


def test_goodput_counts_requests_within_all_limits(bench, fake, tmp_path):
    fake.first_gap = 0.05
    bench(*SMALL, "--goodput", "ttft:1", "e2el:100000", "--save-result", "--result-dir", tmp_path / "a")
    assert saved(tmp_path / "a")["request_goodput"] == 0
    bench(*SMALL, "--goodput", "ttft:100000", "--save-result", "--result-dir", tmp_path / "b")
    result = saved(tmp_path / "b")
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])


def test_a_sweep_runs_every_rate_and_draws_it(bench, tmp_path):
    plot = tmp_path / "latency.svg"
    code, _ = bench(*SMALL, "--request-rate", "50,inf", "--save-result", "--result-dir", tmp_path, "--plot", plot)
    assert code == 0
    rates = sorted(str(json.loads(path.read_text())["request_rate"]) for path in tmp_path.glob("*.json"))
    assert rates == ["50.0", "inf"]
    drawn = plot.read_text()
    assert drawn.startswith("<svg")
    assert drawn.count("<circle") == 2 * 3 * 2  # runs, metrics, median and p99


def test_a_server_that_comes_late_is_waited_for(bench, fake):
    fake.fail_first = 2
    assert bench(*SMALL, "--ready-check-timeout-sec", 20)[0] == 0


def test_warm_up_is_not_measured(bench, fake, tmp_path):
    bench(*SMALL, "--num-warmups", 3, "--save-result", "--result-dir", tmp_path)
    assert len(fake.asked) == 9
    assert saved(tmp_path)["completed"] == 6


def test_fields_reach_the_server(bench, fake):
    bench(*SMALL, "--temperature", 0, "--top-k", 5, "--extra-body", '{"priority": 3}', "--header", "X-Team=a",
          "--logprobs", 2, "--request-id-prefix", "me-")  # fmt: skip
    _, body, headers = fake.asked[0]
    assert (body["temperature"], body["top_k"], body["priority"], body["logprobs"]) == (0, 5, 3, 2)
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert headers["x-team"] == "a"
    assert headers["x-request-id"] == "me-0"


def test_prompts_may_be_token_ids(bench, fake):
    assert bench(*SMALL, "--skip-tokenizer-init", "--vocab-size", 50)[0] == 0
    prompt = fake.asked[0][1]["prompt"]
    assert len(prompt) == 8
    assert max(prompt) < 50


def test_results_may_be_gathered_in_one_file(bench, tmp_path):
    for _ in range(2):
        bench(*SMALL, "--append-result", "--result-filename", "all.jsonl", "--result-dir", tmp_path)
    assert len([json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--num-prompts", 0), "at least 1"),
        (("--burstiness", 0), "above 0"),
        (("--request-rate", "1,x"), "commas"),
        (("--request-rate", "-1"), "above 0"),
        (("--request-rate", "1,2", "--max-concurrency", "1,2"), "not both"),
        (("--dataset-name", "sharegpt"), "needs --dataset-path"),
        (("--dataset-path", "x"), "reads no --dataset-path"),
        (("--goodput", "ttf:1"), "one of ttft"),
        (("--percentile-metrics", "ttft,x"), "none of"),
        (("--metric-percentiles", "101"), "from 0 to 100"),
        (("--ramp-up-strategy", "linear"), "a ramp needs"),
        (("--plot", "x.gif"), ".svg"),
        (("--skip-tokenizer-init",), "--vocab-size"),
        (("--header", "x"), "KEY=VALUE"),
        (("--random-range-ratio", "1"), "below 1"),
        (("--requestrate", "1"), "--request-rate"),
    ],
)
def test_what_cannot_be_is_refused(bench, fake, words, said):
    try:
        code, out = bench(*words)
    except SystemExit as ended:
        code, out = ended.code, said
    assert code != 0
    assert said in out
    assert not fake.asked


@pytest.mark.parametrize("model", [[], ["--model", "org/model"]])
def test_no_server_is_said_so(capsys, model):
    from vllm_core.cli import main

    assert main(["bench", "serve", "--base-url", "http://127.0.0.1:9", "--num-prompts", "1", *model]) == 1
    assert "is the server running?" in capsys.readouterr().err


def test_no_tokenizer_says_what_to_do(bench, fake):
    fake.mode = "no tokenizer"
    code, out = bench(*SMALL)
    assert code == 1
    assert "--skip-tokenizer-init" in out
