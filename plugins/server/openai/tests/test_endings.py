"""The end of a server takes everything with it, and the command that measures this sees what does not go."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import uvicorn
from vllm_plugin_server import others
from vllm_plugin_server.drain import DrainingServer
from vllm_plugin_server.stream import after
from vllm_plugin_server.testing import endings as endings_module
from vllm_plugin_server.testing.ending_kinds import Run
from vllm_plugin_server.testing.endings import EndingsReport, endings, next_start
from vllm_plugin_server.testing.marked_server import MarkedServer
from vllm_plugin_server.testing.wire import Unanswered

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_stream_closed_before_its_first_piece_closes_the_rest_of_it():
    closed = []

    async def pieces():
        try:
            yield b"first"
            yield b"second"
        finally:
            closed.append(True)

    async def main():
        for read in range(3):
            rest = pieces()
            stream = after(await anext(rest), rest)
            got = [await anext(stream) for _ in range(read)]
            await stream.aclose()
            assert len(closed) == read + 1
            assert got == [b"first", b"second"][:read]
            assert [piece async for piece in stream] == []

    asyncio.run(main())


def test_a_signal_ends_the_taking_of_requests_before_anything_else_runs():
    fronts, boundary = others.Others(0, None, None, None), SimpleNamespace(draining=False)
    process = SimpleNamespace(poll=lambda: None, terminate=lambda: told.append(1))
    told, fronts._processes = [], [process]
    server = DrainingServer(uvicorn.Config(None), boundary, None, "", None, fronts)

    server.handle_exit(signal.SIGTERM, None)
    assert boundary.draining
    assert (told, server.force_exit) == ([1], False)

    server.handle_exit(signal.SIGTERM, None)  # not passed on: it would end their requests
    assert (told, server.force_exit, server.exit_code) == ([1], True, 143)


def test_a_front_that_cannot_be_started_takes_those_before_it_along(monkeypatch, tmp_path):
    started = []

    def popen(command, **options):
        if started:
            raise OSError("no more processes")
        started.append(subprocess.Popen(SLEEP, **options))
        return started[0]

    class Module:
        Popen, PIPE = staticmethod(popen), subprocess.PIPE

    monkeypatch.setattr(others, "subprocess", Module)
    monkeypatch.setattr(others, "_told", lambda *arguments: b"{}")
    with (tmp_path / "listener").open("w") as listener, pytest.raises(OSError, match="no more processes"):
        others.Others(2, None, None, listener)
    assert started[0].returncode == -signal.SIGKILL


def test_the_command_sees_a_process_a_file_and_an_exit_code_that_should_not_be():
    leaves = (
        "import os, subprocess, sys, tempfile; tempfile.mkstemp();"
        f"subprocess.Popen({SLEEP!r}, start_new_session=True, stderr=subprocess.DEVNULL); sys.exit(3)"
    )

    async def main():
        async with MarkedServer("none") as server:
            pass
        server = MarkedServer("none")
        server._command = ("-c", leaves)
        async with server:
            run = Run(server, random.Random(0))
            with pytest.raises(TimeoutError, match="there is still"):
                await run.orderly(2)
            (left,) = server.processes()
            subprocess.run(["kill", "-9", str(left)], check=True)
            with pytest.raises(Unanswered, match="exit code 3"):
                await run.orderly(5)
            with pytest.raises(Unanswered, match="left behind"):
                await run.orderly(5, codes=(3,))

    asyncio.run(main())


def test_what_a_killed_server_leaves_is_removed_by_the_next_start():
    report = asyncio.run(endings(1, kinds=["killed"]))
    slow = [finding for finding in report.findings if "there is still" in finding]
    assert report.findings == slow
    assert slow or (report.left_by_kills, report.left_after_next_start) == (1, 0)


def test_what_the_next_start_does_not_remove_is_found(monkeypatch):
    monkeypatch.setattr(endings_module, "START", 0.5)
    report = EndingsReport()

    async def main():
        killed = MarkedServer("none")
        async with killed:
            (killed.folder / "vllm-core-older").mkdir()  # nobody can tell whose it is
            with pytest.raises(Unanswered, match="left behind by a killed server"):
                await next_start(report, "none", killed)

    asyncio.run(main())
    assert report.left_after_next_start == 1


def test_two_endings_leave_nothing():
    kinds = ["SIGTERM during the start", "a second signal"]
    report = asyncio.run(endings(2, kinds=kinds))
    slow = [finding for finding in report.findings if "after" in finding and "there is still" in finding]
    assert report.findings == slow  # how long it takes is the command's to say, on a quiet machine
    assert report.runs == 2


def test_a_signal_while_it_ends_forces_the_end():
    from vllm_plugin_server.signals import Signals, Terminated

    called = []
    with Signals() as signals:
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # while the start is undone: nothing
        signals.force = lambda: called.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)
    assert called
    assert signals.code == 130
