"""What R12 must not take for a fault: load, and faults that requests survive."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from functools import partial

from vllm_plugin_server.testing.fault_stage import Kind, Stage, kind_of
from vllm_plugin_server.testing.wire import Unanswered, request_bytes

__all__ = ["GREENS"]

COMPILER, OTHER = "vllm_core.engine.grammar_child", "vllm_plugin_server.other"
GREENS: list[Kind] = []
_kind = partial(kind_of, GREENS, red=False)


@_kind("full-load", text="four times as many streams as places, beside four other processes that compute")
async def _full(stage: Stage) -> Callable[[], None]:
    await stage.load(64)
    spin = ("-c", "while True: pass")
    others = [await asyncio.create_subprocess_exec(sys.executable, *spin) for _ in range(4)]
    return lambda: [other.kill() for other in others] and None


@_kind("long-prefill", text="prompts as long as the context, one after another")
async def _prefill(stage: Stage) -> None:
    async def go_on() -> None:
        for i in range(1000):
            await stage.ask(prompt=[(7 * i + j) % 200 + 10 for j in range(4000)], max_tokens=2)

    stage.beside += [asyncio.create_task(go_on()) for _ in range(3)]


@_kind("long-compile", text="grammars that take long to compile")
async def _compile(stage: Stage) -> None:
    async def go_on(number: int) -> None:
        for i in range(1000):
            words = [f"{number}-{i}-{j}" for j in range(2000)]
            await stage.ask(structured_outputs={"choice": words}, max_tokens=2)

    stage.beside += [asyncio.create_task(go_on(i)) for i in range(3)]


@_kind("slow-client", text="clients that read nothing of their streams")
async def _slow(stage: Stage) -> Callable[[], None]:
    address, writers = stage.server.address, []
    body = f'{{"model":"{stage.model}","prompt":"a","max_tokens":3000,"ignore_eos":true,"stream":true}}'.encode()
    for _ in range(8):
        _, writer = await asyncio.open_connection(address.host, address.port, limit=1)
        writer.write(request_bytes(address, "POST", "/v1/completions", body))
        writers.append(writer)
    return lambda: [writer.transport.abort() for writer in writers] and None


@_kind("short-stop", text="SIGSTOP of the engine for 0.2 s")
async def _short(stage: Stage) -> None:
    pid = stage.server.engine()
    stage.signal(pid, signal.SIGSTOP)
    await asyncio.sleep(0.2)
    stage.signal(pid, signal.SIGCONT)


@_kind("garbage", text="a search for garbage among a million objects, in both processes")
async def _garbage(stage: Stage) -> None:
    await asyncio.gather(*(asyncio.to_thread(act, "garbage") for act in (stage.engine, stage.front)))


@_kind("clock-steps", text="the clock of both processes goes an hour forward, then an hour back")
async def _clock(stage: Stage) -> None:
    for fault in ("clock-forward", "clock-back"):
        stage.engine(fault)
        stage.front(fault)
        await asyncio.sleep(1)


@_kind("socket-removed", text="the file of the engine's socket is removed")
async def _socket(stage: Stage) -> None:
    (stage.home() / "engine").unlink()


@_kind("compiler-killed", text="SIGKILL of the process that compiles grammars")
async def _compiler_killed(stage: Stage) -> None:
    killed = await _compiles(stage, "[a-c]{3}")
    stage.signal(killed, signal.SIGKILL)
    if await _compiles(stage, "[d-f]{3}") == killed:
        raise Unanswered("the process that compiles is still there")


@_kind("compiler-stopped", text="SIGSTOP of the process that compiles grammars")
async def _compiler_stopped(stage: Stage) -> None:
    stage.signal(await _compiles(stage, "[a-c]{4}"), signal.SIGSTOP)
    if (status := await stage.ask(structured_outputs={"regex": "[d-f]{4}"})) != 400:  # its time was over
        raise Unanswered(f"a grammar while nobody can compile it was answered {status}")
    await _compiles(stage, "[g-h]{4}")


async def _compiles(stage: Stage, regex: str) -> int:
    """The pid of the process that has compiled it."""
    if (status := await stage.ask(structured_outputs={"regex": regex})) != 200:
        raise Unanswered(f"a grammar was answered {status}")
    return stage.process(COMPILER)


@_kind("other-killed", fronts=2, load=0, text="SIGKILL of one of two processes that speak HTTP")
async def _other_killed(stage: Stage) -> None:
    stage.signal(stage.process(OTHER), signal.SIGKILL)
