"""A server whose standard error is a pipe that nobody reads."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from vllm_plugin_server.metrics.dropped import count_dropped
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

SERVER = """
import logging, sys, time
from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server import http_endpoints
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.app import make_app
from vllm_plugin_server.logs import observers
from vllm_plugin_server.logs.setup import configure
from vllm_plugin_server.serve import open_socket, run
from vllm_plugin_server.settings import ServerSettings
from vllm_plugin_server.testing.echo import ROUTES, EchoEngine
from vllm_plugin_server.work import Work

settings = ServerSettings(port=0, log_format="json")
handler = configure(settings.log_level, settings.log_format)
handler._room = 20_000
if sys.argv[1] == "waits":  # as logging does by itself
    plain = logging.StreamHandler()
    plain.setFormatter(handler.formatter)
    logging.getLogger().handlers = [plain]
context = ServerContext(
    engine=EchoEngine(0.0), models={"echo": "base"}, settings=settings, report=dict, work=Work(2, 10.0),
    admission=Admission(100), started=time.time(),
)
observers.attach(context)
listener = open_socket(settings)
print(listener.getsockname()[1], flush=True)
run(make_app(context, [e for e in http_endpoints() if e.path in ROUTES]), context, listener, time.monotonic())
print("over", flush=True)
"""
REQUESTS = 400  # of some 200 bytes in the log each: more than the pipe and the queue hold


@pytest.fixture
def start():
    """Starts it: (process, address)."""
    started = []

    def begin(how):
        process = subprocess.Popen([sys.executable, "-c", SERVER, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        return process, Address("127.0.0.1", int(process.stdout.readline()))

    yield begin
    for process in started:
        process.kill()
        process.communicate()


async def ask(address, seconds=30.0):
    body = json.dumps({"model": "echo", "prompt": "ab", "max_tokens": 2}).encode()
    request = request_bytes(address, "POST", "/v1/completions", body, (("Content-Type", "application/json"),))
    until = time.monotonic() + 30
    while True:
        try:
            return (await send(address, request, seconds=seconds)).status
        except Unanswered as error:  # it may not listen yet
            if "refused" not in str(error).lower() or time.monotonic() > until:
                raise
        await asyncio.sleep(0.1)


def test_it_goes_on_answering_and_says_later_how_much_is_missing(start):
    process, address = start("goes on")

    async def talk():
        return [await ask(address) for _ in range(REQUESTS)]

    assert asyncio.run(talk()) == [200] * REQUESTS
    found = b""
    while b"were dropped" not in found:
        found += os.read(process.stderr.fileno(), 65536)
    lines = [json.loads(line) for line in found.splitlines()[:-1]] + [json.loads(found.splitlines()[-1])]
    answered = [line for line in lines if line["message"] == "answered"]
    (told,) = (line for line in lines if "were dropped" in line["message"])
    assert int(told["message"].split()[0]) + len(answered) == REQUESTS
    assert "request_id" not in told
    assert asyncio.run(ask(address)) == 200
    process.send_signal(signal.SIGTERM)
    out, rest = process.communicate(timeout=30)
    assert out == b"over\n"
    assert [json.loads(line)["message"] for line in rest.splitlines()] == ["answered", "ended"]


def test_it_ends_in_order_although_nobody_reads(start):
    process, address = start("goes on")

    async def talk():
        for _ in range(REQUESTS):
            await ask(address)

    asyncio.run(talk())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_without_the_queue_it_would_stand_still(start):
    _, address = start("waits")

    async def talk():
        for _ in range(REQUESTS):
            await ask(address, seconds=3)

    with pytest.raises(Unanswered):
        asyncio.run(talk())


def test_what_was_dropped_is_a_figure(monkeypatch):
    class Handler:
        dropped, on_drop = 3, None

    monkeypatch.setattr("vllm_plugin_server.metrics.dropped.installed", lambda: Handler)
    registry = CollectorRegistry()
    count_dropped(registry, "vllm:")
    Handler.on_drop(2)
    assert "vllm:log_records_dropped_total 5.0" in generate_latest(registry).decode()
