"""R12: /health turns red within two seconds of whatever gets stuck, and is never red under load.

A server of its own, with streams that run all the time; `inject` brings the faults into its processes. Red is any
status but 200, and no answer within a second. What must stay green may take three seconds to answer: where all
processors are taken, whoever asks gets as little of them as the server. Longer than other files: the list of kinds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.testing.inject import server_env, tell
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.watch import family
from vllm_plugin_server.testing.wire import Unanswered, post, request_bytes

__all__ = ["KINDS", "Kind", "Stage", "run_faults"]

LIMIT = 2.0  # seconds until red
CALM = 5.0  # seconds that must stay green
ANSWER, CALM_ANSWER = 1.0, 3.0  # seconds, at most
PATIENCE = 60.0  # seconds until green again
STREAMS = 6
POLL = 0.03  # seconds
FLAGS = (
    "--engine-restarts", "1000", "--max-num-seqs", "16", "--dtype", "float32",
    "--structured-outputs-config", '{"backend": "xgrammar"}',  # it compiles in a process apart
)  # fmt: skip
COMPILER, OTHER = "vllm_core.engine.grammar_child", "vllm_plugin_server.other"


@attrs.define
class Stage:
    """What a fault has to work on."""

    server: OwnServer
    folder: Path  # of `inject`
    model: str
    beside: list[asyncio.Task[Any]] = attrs.field(factory=list)  # of the fault, ended after it

    def engine(self, fault: str) -> None:
        tell(self.folder, self.server.engine(), fault)

    def front(self, fault: str) -> None:
        tell(self.folder, self.server.pid, fault)

    def process(self, module: str) -> int:
        for pid in family(self.server.pid)[1:]:
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise Unanswered(f"there is no process of {module}")

    async def load(self, streams: int, tokens: int = 1500) -> None:
        """Streams that run until the next fault."""
        client = Client(self.server.url)
        wish = Wish(backend="openai", route="/v1/completions", model=self.model, ignore_eos=True)

        async def go_on(number: int) -> None:
            while True:
                outcome: Outcome = await ask(client, wish, Sample(f"Number {number}", 1, tokens), number)
                if not outcome.success:
                    await asyncio.sleep(0.2)

        self.beside += [asyncio.create_task(go_on(i)) for i in range(streams)]

    async def ask(self, **fields: Any) -> int:
        """The status of a completion; 0 if there is no answer."""
        body = {"model": self.model, "prompt": "One", "max_tokens": 8, "temperature": 0, **fields}
        try:
            return (await post(self.server.address, "/v1/completions", body, seconds=30)).status
        except Unanswered:
            return 0

    async def rest(self) -> None:
        for task in self.beside:
            task.cancel()
        await asyncio.gather(*self.beside, return_exceptions=True)
        self.beside.clear()


Act = Callable[[Stage], Awaitable[Callable[[], None] | None]]


@attrs.frozen
class Kind:
    """A fault. ``act`` may return what undoes it; ``allowed``: seconds that are the fault's own before it is one."""

    name: str
    red: bool
    text: str
    act: Act
    load: int = STREAMS
    fronts: int = 1
    allowed: float = 0.0


KINDS: list[Kind] = []


def _kind(name: str, *, red: bool, text: str, **more: Any) -> Callable[[Act], Act]:
    def note(act: Act) -> Act:
        KINDS.append(Kind(name, red, text, act, **more))
        return act

    return note


def _inject(name: str, where: str, fault: str, text: str, **more: Any) -> None:
    async def act(stage: Stage) -> None:
        getattr(stage, where)(fault)

    KINDS.append(Kind(name, True, text, act, **more))


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


@_kind("engine-killed", red=True, text="SIGKILL of the engine's process")
async def _killed(stage: Stage) -> None:
    stage.server.kill_engine()


@_kind("engine-stopped", red=True, text="SIGSTOP of the engine's process under load")
async def _stopped(stage: Stage) -> None:
    _signal(stage.server.engine(), signal.SIGSTOP)


@_kind("engine-stopped-idle", red=True, text="SIGSTOP of an engine that has nothing to do", load=0)
async def _stopped_idle(stage: Stage) -> None:
    _signal(stage.server.engine(), signal.SIGSTOP)


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
    red=True,
    load=0,
    text="the engine's answers get lost, so that it has nothing to do while clients wait",
)
async def _mute(stage: Stage) -> None:
    stage.engine("mute")
    stage.beside.append(asyncio.create_task(stage.ask()))


@_kind("end-untold", red=True, text="the thread that waits for the engine's end is dead, and the engine killed", load=0)
async def _untold(stage: Stage) -> None:
    stage.front("untold")
    stage.server.kill_engine()


@_kind("folder-removed", red=True, text="the engine's folder is cleared away, then the engine is stopped")
async def _folder(stage: Stage) -> None:
    for path in _home(stage).iterdir():
        path.unlink()
    _home(stage).rmdir()
    _signal(stage.server.engine(), signal.SIGSTOP)


_inject("loop-sleeps", "front", "loop-sleeps", "the server's event loop is held, asleep")
_inject("loop-spins", "front", "loop-spins", "the server's event loop is held by an endless computation")
_inject("detokenizer-spins", "front", "detokenizer-spins", "detokenisation never ends")


@_kind("front-stopped", red=True, text="SIGSTOP of the server's own process")
async def _front(stage: Stage) -> Callable[[], None]:
    _signal(stage.server.pid, signal.SIGSTOP)
    return lambda: _signal(stage.server.pid, signal.SIGCONT)


@_kind("front-without-files", red=True, text="the server's process may open no more files")
async def _files(stage: Stage) -> Callable[[], None]:
    pid = stage.server.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, before) and None


@_kind(
    "tokenizer-stuck", red=True, load=0, allowed=10.0,
    text="all threads that read texts hang; 10 s are their own time limit",
)  # fmt: skip
async def _tokenizer(stage: Stage) -> None:
    stage.front("tokenizer-stuck")
    stage.beside += [asyncio.create_task(stage.ask(prompt="word " * 1000 + str(i), max_tokens=1)) for i in range(8)]


# ---- what is no fault, or one that requests survive


@_kind("full-load", red=False, text="four times as many streams as places, beside four other processes that compute")
async def _full(stage: Stage) -> Callable[[], None]:
    await stage.load(64)
    spin = ("-c", "while True: pass")
    others = [await asyncio.create_subprocess_exec(sys.executable, *spin) for _ in range(4)]
    return lambda: [other.kill() for other in others] and None


@_kind("long-prefill", red=False, text="prompts as long as the context, one after another")
async def _prefill(stage: Stage) -> None:
    async def go_on() -> None:
        for i in range(1000):
            await stage.ask(prompt=[(7 * i + j) % 200 + 10 for j in range(4000)], max_tokens=2)

    stage.beside += [asyncio.create_task(go_on()) for _ in range(3)]


@_kind("long-compile", red=False, text="grammars that take long to compile")
async def _compile(stage: Stage) -> None:
    async def go_on(number: int) -> None:
        for i in range(1000):
            words = [f"{number}-{i}-{j}" for j in range(2000)]
            await stage.ask(structured_outputs={"choice": words}, max_tokens=2)

    stage.beside += [asyncio.create_task(go_on(i)) for i in range(3)]


@_kind("slow-client", red=False, text="clients that read nothing of their streams")
async def _slow(stage: Stage) -> Callable[[], None]:
    address, writers = stage.server.address, []
    body = f'{{"model":"{stage.model}","prompt":"a","max_tokens":3000,"ignore_eos":true,"stream":true}}'.encode()
    for _ in range(8):
        _, writer = await asyncio.open_connection(address.host, address.port, limit=1)
        writer.write(request_bytes(address, "POST", "/v1/completions", body))
        writers.append(writer)
    return lambda: [writer.transport.abort() for writer in writers] and None


@_kind("short-stop", red=False, text="SIGSTOP of the engine for 0.2 s")
async def _short(stage: Stage) -> None:
    pid = stage.server.engine()
    _signal(pid, signal.SIGSTOP)
    await asyncio.sleep(0.2)
    _signal(pid, signal.SIGCONT)


@_kind("garbage", red=False, text="a search for garbage among a million objects, in both processes")
async def _garbage(stage: Stage) -> None:
    await asyncio.gather(*(asyncio.to_thread(act, "garbage") for act in (stage.engine, stage.front)))


@_kind("clock-steps", red=False, text="the clock of both processes goes an hour forward, then an hour back")
async def _clock(stage: Stage) -> None:
    for fault in ("clock-forward", "clock-back"):
        stage.engine(fault)
        stage.front(fault)
        await asyncio.sleep(1)


@_kind("socket-removed", red=False, text="the file of the engine's socket is removed")
async def _socket(stage: Stage) -> None:
    (_home(stage) / "engine").unlink()


@_kind("compiler-killed", red=False, text="SIGKILL of the process that compiles grammars")
async def _compiler_killed(stage: Stage) -> None:
    killed = await _compiles(stage, "[a-c]{3}")
    _signal(killed, signal.SIGKILL)
    if await _compiles(stage, "[d-f]{3}") == killed:
        raise Unanswered("the process that compiles is still there")


@_kind("compiler-stopped", red=False, text="SIGSTOP of the process that compiles grammars")
async def _compiler_stopped(stage: Stage) -> None:
    _signal(await _compiles(stage, "[a-c]{4}"), signal.SIGSTOP)
    if (status := await stage.ask(structured_outputs={"regex": "[d-f]{4}"})) != 400:  # its time was over
        raise Unanswered(f"a grammar while nobody can compile it was answered {status}")
    await _compiles(stage, "[g-h]{4}")


async def _compiles(stage: Stage, regex: str) -> int:
    """The pid of the process that has compiled it."""
    if (status := await stage.ask(structured_outputs={"regex": regex})) != 200:
        raise Unanswered(f"a grammar was answered {status}")
    return stage.process(COMPILER)


@_kind("other-stopped", red=True, fronts=2, text="SIGSTOP of one of two processes that speak HTTP")
async def _other_stopped(stage: Stage) -> None:
    _signal(stage.process(OTHER), signal.SIGSTOP)


@_kind("other-killed", red=False, fronts=2, load=0, text="SIGKILL of one of two processes that speak HTTP")
async def _other_killed(stage: Stage) -> None:
    _signal(stage.process(OTHER), signal.SIGKILL)


def _home(stage: Stage) -> Path:
    """The folder of the engine, from its sockets."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = Path(line.split()[-1])
        if path.name == "engine" and path.parent.parent == stage.folder.parent / "tmp":
            return path.parent
    raise Unanswered("the engine's socket is not to be found")


# ---- one after another


async def _look(
    stage: Stage, seconds: float, until: Callable[[int], bool], answer: float = ANSWER
) -> tuple[float, int] | None:
    """When a look at /health found so, in seconds from now, and its status; 0: no answer."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        if until(status := await stage.server.health(answer)):
            return time.perf_counter() - begin, status
        await asyncio.sleep(POLL)
    return None


async def _try(kind: Kind, stage: Stage, probe: Probe) -> dict[str, Any]:
    await stage.load(kind.load)
    await asyncio.sleep(1.0 if kind.load else 0.3)
    found: dict[str, Any] = {"expected": "red" if kind.red else "green", "well": False}
    undo = None
    looks: asyncio.Task[Any]
    try:
        if kind.red:
            looks = asyncio.create_task(_look(stage, kind.allowed + 3 * LIMIT, lambda status: status != 200))
            await asyncio.sleep(0)
            undo = await kind.act(stage)
            red = await looks
            found["seconds"] = None if red is None else round(red[0] - kind.allowed, 2)
            found["status"] = None if red is None else red[1]
            found["well"] = red is not None and red[0] - kind.allowed <= LIMIT
        else:
            looks = asyncio.create_task(_look(stage, CALM, lambda status: status != 200, CALM_ANSWER))
            undo = await kind.act(stage)
            while not looks.done():
                await asyncio.sleep(0.1)
            if looks.result() is not None:
                found["red_seconds"], found["status"] = looks.result()
            found["well"] = looks.result() is None
    except (Unanswered, OSError, RuntimeError, StopIteration) as error:
        found |= {"well": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        if undo is not None:
            undo()
        await stage.rest()
    back = await _look(stage, PATIENCE, lambda status: status == 200)
    found["green_again_seconds"] = None if back is None else round(back[0], 2)
    try:
        wrong = "" if back is None else await probe.wrong()
    except Unanswered as error:
        wrong = str(error)
    if back is None or wrong:
        found |= {"well": False, "after": wrong or f"/health was not 200 within {PATIENCE:g} s"}
    return found


@contextlib.asynccontextmanager
async def staged(model: str | None, fronts: int, *flags: str) -> AsyncIterator[tuple[Stage, Probe]]:
    """A server whose processes obey, and what it says when nothing is wrong."""
    with tempfile.TemporaryDirectory(prefix="f-") as name:
        folder, temporary = Path(name) / "on", Path(name) / "tmp"
        folder.mkdir()
        temporary.mkdir()
        served = model or str(write_tiny(Path(name) / "tiny", 4096))
        count = ("--api-server-count", str(fronts)) if fronts > 1 else ()
        env = {**server_env(folder), "TMPDIR": str(temporary)}
        flags = (*FLAGS, *count, "--served-model-name", "served", *flags)
        async with OwnServer(served, *flags, env=env) as server:
            stage = Stage(server, folder, "served")
            probe = Probe(server.address, "served", 8)
            await probe.ask()
            if wrong := await probe.wrong():
                raise Unanswered(wrong)
            yield stage, probe


async def run_faults(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    """Each kind that was asked for, on servers that live through all of them."""
    chosen = [kind for kind in KINDS if not args.kind or kind.name in args.kind]
    if unknown := set(args.kind or ()) - {kind.name for kind in KINDS}:
        raise ValueError(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(k.name for k in KINDS)}")
    report: dict[str, Any] = {}
    for fronts in sorted({kind.fronts for kind in chosen}):
        async with staged(args.model, fronts) as (stage, probe):
            for kind in (kind for kind in chosen if kind.fronts == fronts):
                report[kind.name] = {"what": kind.text, **await _try(kind, stage, probe)}
                print(
                    kind.name, {k: v for k, v in report[kind.name].items() if k != "what"}, file=sys.stderr, flush=True
                )
    reds = [found["seconds"] for found in report.values() if found.get("seconds") is not None]
    return all(found["well"] for found in report.values()), {
        "kinds": len(report),
        "not_well": [name for name, found in report.items() if not found["well"]],
        "most_seconds_until_red": max(reds, default=None),
        "faults": report,
    }
