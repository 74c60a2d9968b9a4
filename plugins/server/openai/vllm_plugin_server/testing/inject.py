"""Faults inside a server's processes, for measurements: each process listens on a socket of its own for their names.

`server_env` makes the environment of such a server. Nothing of it is in the server's own code: Python imports
``sitecustomize`` from PYTHONPATH in every process that starts, and that one calls `arm`. Longer than other files, as
each fault is a few lines that nothing else needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vllm_core.plugin import load_target

__all__ = ["FAULTS", "arm", "server_env", "tell"]

VARIABLE = "VLLM_FAULTS_UNDER_TEST"
SITE = f'''import os
if "{VARIABLE}" in os.environ:
    from vllm_plugin_server.testing.inject import arm
    arm(os.environ["{VARIABLE}"])
'''
HELD = 6.0  # seconds that a front's event loop is held
FAULTS: dict[str, Callable[[], None]] = {}


def server_env(folder: Path) -> dict[str, str]:
    """``folder``: empty, with a short path, for the sockets."""
    (folder / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {VARIABLE: str(folder), "PYTHONPATH": path}


def arm(folder: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{folder}/{os.getpid()}")
    listener.listen()
    threading.Thread(target=_obey, args=(listener,), daemon=True, name="faults").start()


def tell(folder: Path, pid: int, fault: str) -> None:
    """Let a process do it. Returns when it has been prepared there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to:
        to.settimeout(10)
        to.connect(f"{folder}/{pid}")
        to.sendall(fault.encode() + b"\n")
        if (said := to.recv(1000)) != b"done\n":
            raise RuntimeError(f"fault {fault} in process {pid}: {said.decode()}")


def _obey(listener: socket.socket) -> None:
    while True:
        caller, _ = listener.accept()
        with caller, contextlib.suppress(OSError):
            name = caller.recv(1000).decode().strip()
            try:
                FAULTS[name]()
            except Exception as error:
                caller.sendall(f"{type(error).__name__}: {error}".encode())
            else:
                caller.sendall(b"done\n")


def _fault(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def note(function: Callable[[], None]) -> Callable[[], None]:
        FAULTS[name] = function
        return function

    return note


def _the(kind: type) -> Any:
    """The one object of this process that has this class."""
    return next(found for found in gc.get_objects() if type(found) is kind)


# ---- what gets stuck


def _spin(*_: Any, **__: Any) -> None:
    while True:
        pass


def _lock(*_: Any, **__: Any) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _freeze(*_: Any, **__: Any) -> None:
    """Native code that keeps the interpreter's lock: no thread of Python goes on."""
    ctypes.PyDLL(None).sleep(3600)


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("a fault that a test asked for")


# ---- the engine's process


def _in_step(how: Callable[..., None]) -> None:
    OverlappedLoop = load_target("vllm_core.engine.loop:OverlappedLoop")

    OverlappedLoop.step = how  # type: ignore[method-assign,assignment]


FAULTS["step-spins"] = lambda: _in_step(_spin)
FAULTS["step-deadlocks"] = lambda: _in_step(_lock)
FAULTS["step-freezes"] = lambda: _in_step(_freeze)
FAULTS["step-raises"] = lambda: _in_step(_raise)
FAULTS["step-exits"] = lambda: _in_step(lambda _: os._exit(3))


def _in_forward(how: Callable[..., None]) -> None:
    Runner = load_target("vllm_core.runner.runner:Runner")

    Runner.execute = how  # type: ignore[method-assign,assignment]


FAULTS["forward-spins"] = lambda: _in_forward(_spin)
FAULTS["forward-waits"] = lambda: _in_forward(_lock)


@_fault("hook-spins")
def _hook_spins() -> None:
    """A metrics sink, which the loop calls after each step."""
    Listener = load_target("vllm_core.engine.meter:Listener")
    Meter = load_target("vllm_core.engine.meter:Meter")

    class Stuck(Listener):
        def step(self, stats: Any) -> None:
            _spin()

        def request(self, stats: Any) -> None:
            """Nothing."""

    _the(Meter).listeners.append(Stuck())


@_fault("worker-dead")
def _worker_dead() -> None:
    """The thread that computes takes nothing more from its queue."""
    import queue

    InProcessExecutor = load_target("vllm_core.runner.inprocess:InProcessExecutor")

    _the(InProcessExecutor)._thread._work_queue = queue.SimpleQueue()


@_fault("deaf")
def _deaf() -> None:
    Fronts = load_target("vllm_core.engine.fronts:Fronts")

    Fronts.receive = _lock  # type: ignore[method-assign,assignment]


@_fault("mute")
def _mute() -> None:
    Fronts = load_target("vllm_core.engine.fronts:Fronts")

    Fronts.send = lambda *_: True  # type: ignore[method-assign,assignment]


@_fault("garbage")
def _garbage() -> None:
    """A million objects, and a search through them that holds the interpreter's lock."""
    held: list[Any] = [[i] for i in range(1_000_000)]
    gc.collect()
    held.clear()


@_fault("clock-forward")
def _clock_forward() -> None:
    real = time.time
    time.time = lambda: real() + 3600.0


@_fault("clock-back")
def _clock_back() -> None:
    real = time.time
    time.time = lambda: real() - 7200.0


# ---- a front's process


@_fault("untold")
def _untold() -> None:
    """The thread that waits for the engine's end tells nobody."""
    _Child = load_target("vllm_core.engine.remote:_Child")

    for found in gc.get_objects():
        if type(found) is _Child:
            found.on_end = None


def _hold(how: Callable[[], None]) -> None:
    from vllm_plugin_server.drain import DrainingServer

    before = DrainingServer.on_tick

    async def on_tick(self: Any, counter: int) -> bool:
        DrainingServer.on_tick = before  # type: ignore[method-assign]
        how()
        return await before(self, counter)

    DrainingServer.on_tick = on_tick  # type: ignore[method-assign]


def _busy() -> None:
    end = time.monotonic() + HELD
    while time.monotonic() < end:
        pass


FAULTS["loop-sleeps"] = lambda: _hold(lambda: time.sleep(HELD))
FAULTS["loop-spins"] = lambda: _hold(_busy)


@_fault("detokenizer-spins")
def _detokenizer_spins() -> None:
    OutputProcessor = load_target("vllm_core.engine.processor:OutputProcessor")

    before = OutputProcessor.take

    def take(self: Any, *arguments: Any) -> Any:
        OutputProcessor.take = before  # type: ignore[method-assign]
        _busy()
        return before(self, *arguments)

    OutputProcessor.take = take  # type: ignore[method-assign]


@_fault("tokenizer-stuck")
def _tokenizer_stuck() -> None:
    """For long texts, which threads read: they never come back, as in native code that nothing ends."""
    AsyncLLM = load_target("vllm_core.engine.async_llm:AsyncLLM")

    before = AsyncLLM.read_prompt

    def read_prompt(self: Any, prompt: Any, **options: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait(25)
        return before(self, prompt, **options)

    AsyncLLM.read_prompt = read_prompt  # type: ignore[method-assign]


_log: list[int] = []


def _log_to(descriptor: int) -> None:
    if not _log:
        _log.append(os.dup(2))
    os.dup2(descriptor, 2)


@_fault("log-full")
def _log_full() -> None:
    """As on a full disk."""
    _log_to(os.open("/dev/full", os.O_WRONLY))


@_fault("log-slow")
def _log_slow() -> None:
    """Read again only after a while."""
    out, into = os.pipe()
    _log_to(into)
    real = _log[0]

    def read() -> None:
        time.sleep(3)
        while piece := os.read(out, 4096):
            os.write(real, piece)
            time.sleep(0.01)

    threading.Thread(target=read, daemon=True, name="slow-disk").start()
    os.close(into)


@_fault("log-back")
def _log_back() -> None:
    os.dup2(_log[0], 2)
