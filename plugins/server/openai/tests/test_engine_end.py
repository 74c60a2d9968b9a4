"""What clients see when the engine's process, or one of several that speak HTTP, ends."""

from __future__ import annotations

import json
import signal
import threading
import time

import httpx
import psutil
import pytest

LONG = {"prompt": "a", "max_tokens": 480, "temperature": 0, "ignore_eos": True, "stream": True}


def processes_of(server, module: str) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if child.status() != "zombie" and module in child.cmdline()]


def kill_engine(server) -> None:
    (engine,) = processes_of(server, "vllm_core.engine.process")
    engine.send_signal(signal.SIGKILL)


def until(condition, seconds: float = 20.0) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)


def health(server) -> int:
    return server.get("/health").status_code


class Stream(threading.Thread):
    """A stream that runs; ``events``: all that came, once it has ended."""

    def __init__(self, server) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._url, self._begun = f"{server.url}/v1/completions", threading.Event()
        self.start()
        assert self._begun.wait(30)

    def run(self) -> None:
        with httpx.stream("POST", self._url, json=LONG, timeout=60) as stream:
            for line in stream.iter_lines():
                self._lines.append(line)
                self._begun.set()

    @property
    def events(self) -> list[dict]:
        self.join(60)
        *events, done = [line.removeprefix("data: ") for line in self._lines if line]
        assert done == "[DONE]"
        return [json.loads(event) for event in events]

    @property
    def text(self) -> str:
        return "".join(event["choices"][0]["text"] for event in self.events)


def test_a_killed_engine_is_told_to_all_and_another_one_serves(start):
    server = start("--engine-restarts", "1")
    streams = [Stream(server) for _ in range(3)]
    kill_engine(server)
    until(lambda: health(server) == 503)
    until(lambda: health(server) == 200)

    ends = [stream.events[-1] for stream in streams]
    assert all("error" in end or end["choices"][0]["finish_reason"] for end in ends)
    broken = [end["error"] for end in ends if "error" in end]
    assert broken
    assert all(error["code"] == "engine_dead" and "killed by signal 9" in error["message"] for error in broken)
    assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200

    kill_engine(server)  # one more than it may be started again
    assert server.process.wait(20) == 1
    assert "killed by signal 9" in next(line for line in server.lines if "CRITICAL" in line)


def test_streams_go_on_in_the_next_engine_if_they_are_carried_over(start):
    server = start("--carry-over")
    whole = Stream(server).text
    stream = Stream(server)
    kill_engine(server)

    assert stream.text == whole


@pytest.fixture(scope="module")
def several(start):
    return start("--api-server-count", "2", "--max-concurrent-requests", "8")


def test_several_processes_answer_and_count_together(several):
    assert len(processes_of(several, "vllm_plugin_server.other")) == 1
    for i in range(20):
        answer = several.post("/v1/completions", {"prompt": f"{i}", "max_tokens": 2, "ignore_eos": True})
        assert answer.json()["usage"]["completion_tokens"] == 2
    figures = several.get("/metrics").text
    (total,) = [line for line in figures.splitlines() if line.startswith("vllm:generation_tokens_total")]
    assert float(total.split()[-1]) == 40


def test_one_of_them_that_ends_is_started_again(several):
    (other,) = processes_of(several, "vllm_plugin_server.other")
    other.kill()
    until(lambda: [p for p in processes_of(several, "vllm_plugin_server.other") if p.pid != other.pid])
    assert several.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200


def test_the_others_say_that_the_first_one_does_not_go_on(several):
    """Connections go to either of them; those that come to the stopped one wait for it."""
    words = []

    def told():
        try:
            answer = httpx.get(f"{several.url}/health", timeout=1)
        except httpx.TimeoutException:
            return False
        words.append(answer.text)
        return answer.status_code == 503

    several.process.send_signal(signal.SIGSTOP)
    try:
        until(told)
    finally:
        several.process.send_signal(signal.SIGCONT)
    assert "a process of --api-server-count" in words[-1]
    assert "was stopped by a signal" in words[-1]
    until(lambda: health(several) == 200)


def test_all_of_them_end_with_the_server(several):
    children = psutil.Process(several.process.pid).children(recursive=True)
    assert several.stop() == 0
    assert not psutil.wait_procs(children, timeout=5)[1]
