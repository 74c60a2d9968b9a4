"""A server with two engines, as its clients see it: one of them may die."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

TWO = ("--data-parallel-size", "2", "--carry-over")


@pytest.fixture(scope="module")
def pair(start):
    return start(*TWO, "--api-server-count", "2")


def ask(server, prompt="Once", tokens=20):
    body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return server.post("/v1/completions", body)


def engines_of(server):
    """The engines' processes, by the start of the first of them."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                with open(f"/proc/{name}/cmdline") as file:
                    command = file.read()
            except OSError:
                continue
            if parent == server.process.pid and "vllm_core.engine.process" in command:
                found.append(int(name))
    return sorted(found)


def by_engine(server, name):
    families = parse(server.get("/metrics").text)
    return {s.labels["engine"]: s.value for f in families for s in f.samples if s.name == name}


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_two_engines_answer_as_one_does_and_each_is_counted(server, pair):
    prompts = [f"Number {i}" for i in range(8)]
    expected = [ask(server, prompt).json()["choices"][0]["text"] for prompt in prompts]
    assert [ask(pair, prompt).json()["choices"][0]["text"] for prompt in prompts] == expected
    assert until(lambda: sum(by_engine(pair, "vllm:generation_tokens_total").values()) == 160)
    counted = by_engine(pair, "vllm:generation_tokens_total")
    assert set(counted) == {"0", "1"}
    assert min(counted.values()) > 0
    assert by_engine(pair, "vllm:engine_up") == {"0": 1, "1": 1}
    assert [one["state"] for one in pair.get("/load").json()["engines"]] == ["ready", "ready"]
    assert pair.get("/version").json()["engines"] == [{"engine": i, "state": "ready"} for i in (0, 1)]


def test_a_killed_engine_is_not_noticed_by_clients_and_replaced(start):
    server = start(*TWO)
    expected = ask(server, tokens=300).json()["choices"][0]["text"]
    first = engines_of(server)
    assert len(first) == 2
    answers, stop = [], threading.Event()

    def keep_asking():
        while not stop.is_set():
            answers.append((ask(server, tokens=300), server.get("/health").status_code))

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) > 4)
    os.kill(first[0], signal.SIGKILL)
    replaced = until(lambda: len(engines_of(server)) == 2 and engines_of(server) != first)
    ready = until(lambda: by_engine(server, "vllm:engine_up") == {"0": 1, "1": 1})
    stop.set()
    for thread in threads:
        thread.join()
    assert replaced
    assert ready
    assert {health for _, health in answers} == {200}
    assert {answer.status_code for answer, _ in answers} == {200}
    assert {answer.json()["choices"][0]["text"] for answer, _ in answers} == {expected}
    assert re.search(r"engine [01]: the engine('s)? process \(pid", server.log)  # whoever saw it first says so


def test_contradictory_settings_end_the_start_with_what_would_work(start):
    server = start("--data-parallel-size", "2", "--data-parallel-rank", "2", wait=False)
    assert server.process.wait(60) != 0
    assert until(lambda: "--data-parallel-rank 0 to 1" in server.log, 5)


def test_a_headless_node_serves_the_other_nodes_clients(start, server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    secret.chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fleet = (
        "--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address", "127.0.0.1",
        "--data-parallel-rpc-port", str(port), "--data-parallel-secret-file", str(secret),
    )  # fmt: skip
    node = start("--headless", "--data-parallel-start-rank", "1", *fleet, wait=False)
    head = start(*fleet)
    texts = [ask(head, f"Number {i}").json()["choices"][0]["text"] for i in range(6)]
    assert texts == [ask(server, f"Number {i}").json()["choices"][0]["text"] for i in range(6)]
    assert by_engine(head, "vllm:engine_up") == {"0": 1, "1": 1}
    assert until(lambda: min(by_engine(head, "vllm:generation_tokens_total").values()) > 0)
    assert len(engines_of(head)) == len(engines_of(node)) == 1
    assert node.stop() == 0
    assert until(lambda: by_engine(head, "vllm:engine_up") == {"0": 1, "1": 0})
    assert head.get("/health").status_code == 200
    assert ask(head).status_code == 200
