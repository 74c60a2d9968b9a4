"""The engine in a process of its own. Started as ``python -m vllm_core.engine.process`` by `engine.remote`.

Standard input gives the ``Start`` message and stays open: its end means that the caller is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from vllm_core.engine import wire
from vllm_core.engine.core import EngineCore
from vllm_core.engine.fronts import Fronts
from vllm_core.engine.home import Home
from vllm_core.engine.last_stack import keep_stack, write_owners
from vllm_core.engine.log_queue import log_beside
from vllm_core.engine.pids import die_with_parent, obey_pipe, wait_for_end
from vllm_core.engine.pulse import Pulse
from vllm_core.engine.recipe import settings_of
from vllm_core.engine.serve import Server
from vllm_core.engine.sinks import Sinks, open_sinks
from vllm_core.engine.timed_steps import StepClock, TimedSteps

__all__ = ["main"]

LAST_WORDS = 5.0  # seconds that the first front may take to connect, where there is only a failure to tell
# Torch gives the interpreter's lock back in each call: a busy thread would then keep the steps waiting for 5 ms.
SWITCH = 0.0005  # seconds
SPARE, SPARE_ELSEWHERE = 1.0, 2.0  # seconds of a turn of the loop beyond what its steps should take
COMPILE_ELSEWHERE = 30.0  # seconds more to launch a step where kernels compile when they are first needed


def main() -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group they reach all; the caller decides
        signal.signal(ignored, signal.SIG_IGN)
    obey_pipe(sys.stdin.fileno())  # before imports that take seconds
    log_beside()  # no step waits for who reads standard error
    import vllm_core.engine.build  # noqa: F401 - torch and all: the caller still resolves

    sys.setswitchinterval(SWITCH)
    # Past Python's buffers, whose locks a thread that waits at the end of the process would hold.
    start = _read_start(sys.stdin.fileno())
    die_with_parent(start.pid)
    threading.Thread(target=_end_with_the_caller, args=(sys.stdin.fileno(), start.pid), daemon=True).start()
    home = Home(Path(start.folder))
    keep_stack(home.folder)
    pulse, fronts = Pulse(home.pulse), Fronts(home.address, start.front)
    try:
        core, steps, sinks, timings = _build(start, pulse)
    except (Exception, SystemExit) as error:
        _refuse_the_first(fronts, wire.Failed(kind=type(error).__name__, error=str(error)))
        return 1
    try:
        ready = wire.Ready(
            vocab_size=core.capacity.vocab_size,
            longest=core.roster.max_len,
            timings=timings,
            pid=os.getpid(),
            pages=core.capacity.num_pages - 1,
            page_tokens=[group.block_size for group in core.capacity.caches.groups],
        )
        steps.when_it_ends(fronts.break_off)
        Server(core, fronts, pulse, steps, ready, start.digest).run()
    except (Exception, SystemExit) as error:  # a plugin must not end the engine without a word
        fronts.tell_all(wire.Failed(kind=type(error).__name__, error=str(error)))
        return 1
    finally:
        sinks.close()
        core.executor.stop()
        if core.grammars is not None:
            core.grammars.close()
        fronts.close()
    return 0


def _refuse_the_first(fronts: Fronts, failed: wire.Failed) -> None:
    """Tell the first front, whose connection may not be there yet, why there is no engine."""
    deadline = time.monotonic() + LAST_WORDS
    while not fronts.send(fronts.first, failed) and time.monotonic() < deadline:
        time.sleep(0.02)
    fronts.close()


def _build(start: wire.Start, pulse: Pulse) -> tuple[EngineCore, TimedSteps, Sinks, dict[str, float]]:
    """The engine of these settings. ``LockMismatch`` if the choices made here are not the caller's."""
    from vllm_core.engine.build import start_executor
    from vllm_core.engine.resolve import resolve
    from vllm_core.plugins.errors import LockMismatch
    from vllm_core.plugins.whose import owners_of

    settings = settings_of(start.settings)
    resolved = resolve(settings)
    if resolved.lock.digest != start.digest:
        raise LockMismatch(
            "the engine process made other choices than its caller.",
            why=f"lock {resolved.lock.digest[:12]} here, {start.digest[:12]} there: a package, a plugin or a "
            "configuration file was changed meanwhile",
            known=f"here they are of {resolved.lock.owners}",
            instead="start again",
        )
    owners = owners_of(resolved.lock)
    write_owners(Path(start.folder), owners)
    executor, capacity = start_executor(resolved)
    here = resolved.build.model.device.type == "cpu"
    clock = StepClock(SPARE) if here else StepClock(SPARE_ELSEWHERE, COMPILE_ELSEWHERE)
    steps = TimedSteps(executor, pulse, clock)
    sinks = open_sinks(resolved.sinks)
    core = EngineCore(
        settings,
        capacity,
        steps,
        max_model_len=resolved.build.model.max_model_len,
        max_step_tokens=resolved.max_step_tokens,
        policy=resolved.policy.make(),
        grammars=resolved.build.grammars,
        owners=owners,
    )
    if sinks:
        core.meter.listeners.append(sinks)
    return core, steps, sinks, {**resolved.timings, **capacity.timings}


def _read_start(pipe: int) -> wire.Start:
    size = int.from_bytes(_read(pipe, 8), "little")
    return wire.decode_start(_read(pipe, size))


def _read(pipe: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := os.read(pipe, size - len(found))):
            os._exit(1)  # the caller has gone before it said what to build
        found += more
    return found


def _end_with_the_caller(pipe: int, pid: int) -> None:
    wait_for_end(pid, pipe)  # a process that the caller forked may hold the pipe open
    os._exit(1)  # whatever the engine is doing: nobody waits for it


if __name__ == "__main__":
    sys.exit(main())
