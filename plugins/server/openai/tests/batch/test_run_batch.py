"""``vllm-core run-batch`` on a tiny model, through the server's own routes."""

import json
import os
import subprocess
import sys

import pytest

FLAGS = ("--dtype", "float32", "--max-num-seqs", "16", "--served-model-name", "tiny")


def run_batch(*words):
    command = [sys.executable, "-m", "vllm_core", "run-batch", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def chat(name, content, **fields):
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 4, **fields}
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})


@pytest.mark.slow
def test_a_file_of_requests_becomes_a_file_of_answers(tiny, tmp_path):
    completion = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "n": 2, "temperature": 1.0, "seed": 1}
    lines = [chat(f"c{i}", f"Say {i}") for i in range(30)]
    lines[5:5] = [
        json.dumps({"custom_id": "p", "method": "POST", "url": "/v1/completions", "body": completion}),
        "this is no JSON",
        chat("wrong", "x", temperature=-1),
        chat("no model", "x", model="other"),
        chat("a stream", "x", stream=True),
        json.dumps({"custom_id": "no route", "method": "POST", "url": "/v1/nothing", "body": {}}),
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines))
    done = run_batch("-i", source, "-o", out, "--model", tiny, *FLAGS, "--max-concurrent-requests", 8)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["custom_id"] for line in found] == [
        json.loads(line)["custom_id"] if line.startswith("{") else None for line in lines
    ]
    by_name = {line["custom_id"]: line for line in found}
    answer = by_name["c7"]["response"]
    assert (answer["status_code"], by_name["c7"]["error"]) == (200, None)
    assert answer["body"]["object"] == "chat.completion"
    assert answer["body"]["usage"]["completion_tokens"] == 4
    assert len(by_name["p"]["response"]["body"]["choices"]) == 2
    assert by_name["wrong"]["response"]["status_code"] == 400
    assert by_name["wrong"]["error"]["param"] == "temperature"
    assert by_name["no model"]["response"]["status_code"] == 404
    assert "leave stream out" in by_name["a stream"]["error"]["message"]
    assert by_name["no route"]["response"]["status_code"] == 404
    assert by_name[None]["error"]["code"] == "invalid_line"
    assert "36 requests answered, 5 of them with an error" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-i", "http://169.254.169.254/in", "-o", "out", "--model", "m"), "not fetched"),
        (("-i", "in.jsonl", "-o", "https://x.example/out", "--model", "m"), "not fetched"),
        (("-i", "in.jsonl", "-o", "out"), "no model was named"),
        (("-i", "in.jsonl", "-o", "out", "m", "--model", "m"), "given twice"),
        (("-i", "in.jsonl", "-o", "out", "--model", "m", "--port", "80"), "--port is not known"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(words, said, tmp_path, monkeypatch, capsys):
    from vllm_core.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("{}\n")
    try:
        code = main(["run-batch", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_an_input_that_is_not_there_is_said_so(tmp_path, capsys):
    from vllm_core.cli import main

    assert main(["run-batch", "-i", str(tmp_path / "none"), "-o", "out", "--model", "m"]) == 1
    assert "No such file" in capsys.readouterr().err
