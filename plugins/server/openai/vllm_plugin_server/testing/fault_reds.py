"""Faults of R12 that must turn /health red: what gets stuck in the engine and in those that speak HTTP."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable
from functools import partial

from vllm_plugin_server.testing.fault_stage import Kind, Stage, kind_of

__all__ = ["REDS"]

OTHER = "vllm_plugin_server.other"
REDS: list[Kind] = []
_kind = partial(kind_of, REDS, red=True)


def _inject(name: str, where: str, fault: str, text: str) -> None:
    async def act(stage: Stage) -> None:
        getattr(stage, where)(fault)

    REDS.append(Kind(name, True, text, act))


@_kind("engine-killed", text="SIGKILL of the engine's process")
async def _killed(stage: Stage) -> None:
    stage.server.kill_engine()


@_kind("engine-stopped", text="SIGSTOP of the engine's process under load")
async def _stopped(stage: Stage) -> None:
    stage.signal(stage.server.engine(), signal.SIGSTOP)


@_kind("engine-stopped-idle", text="SIGSTOP of an engine that has nothing to do", load=0)
async def _stopped_idle(stage: Stage) -> None:
    stage.signal(stage.server.engine(), signal.SIGSTOP)


_inject("engine-exits", "engine", "step-exits", "a step ends the process")
_inject("step-raises", "engine", "step-raises", "an exception in the loop")
_inject("step-spins", "engine", "step-spins", "an infinite loop in a step")
_inject("step-deadlocks", "engine", "step-deadlocks", "a lock that nobody gives back, in a step")
_inject("step-freezes", "engine", "step-freezes", "native code that never returns and keeps the interpreter's lock")
_inject("forward-spins", "engine", "forward-spins", "an infinite loop in the model's thread")
_inject("forward-waits", "engine", "forward-waits", "a device that never answers")
_inject("hook-spins", "engine", "hook-spins", "an infinite loop in a plugin's hook of a step")
_inject("worker-dead", "engine", "worker-dead", "the thread that computes steps takes no more of them")
_inject("engine-deaf", "engine", "deaf", "the engine reads no messages any more")


@_kind(
    "engine-mute",
    load=0,
    text="the engine's answers get lost, so that it has nothing to do while clients wait",
)
async def _mute(stage: Stage) -> None:
    stage.engine("mute")
    stage.beside.append(asyncio.create_task(stage.ask()))


@_kind("end-untold", text="the thread that waits for the engine's end is dead, and the engine killed", load=0)
async def _untold(stage: Stage) -> None:
    stage.front("untold")
    stage.server.kill_engine()


@_kind("folder-removed", text="the engine's folder is cleared away, then the engine is stopped")
async def _folder(stage: Stage) -> None:
    for path in stage.home().iterdir():
        path.unlink()
    stage.home().rmdir()
    stage.signal(stage.server.engine(), signal.SIGSTOP)


_inject("loop-sleeps", "front", "loop-sleeps", "the server's event loop is held, asleep")
_inject("loop-spins", "front", "loop-spins", "the server's event loop is held by an endless computation")
_inject("detokenizer-spins", "front", "detokenizer-spins", "detokenisation never ends")


@_kind("front-stopped", text="SIGSTOP of the server's own process")
async def _front(stage: Stage) -> Callable[[], None]:
    stage.signal(stage.server.pid, signal.SIGSTOP)
    return lambda: stage.signal(stage.server.pid, signal.SIGCONT)


@_kind("front-without-files", text="the server's process may open no more files")
async def _files(stage: Stage) -> Callable[[], None]:
    pid = stage.server.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, before) and None


@_kind(
    "tokenizer-stuck", load=0, allowed=10.0,
    text="all threads that read texts hang; 10 s are their own time limit",
)  # fmt: skip
async def _tokenizer(stage: Stage) -> None:
    stage.front("tokenizer-stuck")
    stage.beside += [asyncio.create_task(stage.ask(prompt="word " * 1000 + str(i), max_tokens=1)) for i in range(8)]


@_kind("other-stopped", fronts=2, text="SIGSTOP of one of two processes that speak HTTP")
async def _other_stopped(stage: Stage) -> None:
    stage.signal(stage.process(OTHER), signal.SIGSTOP)
