"""The engine in a process of its own. Started as ``python -m vllm_core.engine.process`` by `engine.remote`.

Standard input gives the ``Start`` message and stays open: its end means that the caller is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import attrs
import msgspec
import zmq

from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.engine import wire
from vllm_core.engine.core import EngineCore
from vllm_core.engine.errors import RequestError
from vllm_core.engine.figures import Gathered
from vllm_core.engine.messages import Update
from vllm_core.engine.request import FinishReason
from vllm_core.engine.sinks import Sinks, open_sinks

__all__ = ["main", "serve"]


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all; the caller decides
    import vllm_core.engine.build  # noqa: F401 - torch and all: the caller still resolves

    # Past Python's buffers, whose locks a thread that waits at the end of the process would hold.
    start = _read_start(sys.stdin.fileno())
    threading.Thread(target=_end_with_the_caller, args=(sys.stdin.fileno(),), daemon=True).start()
    socket: Any = zmq.Context.instance().socket(zmq.PAIR)
    socket.setsockopt(zmq.LINGER, 1000)  # milliseconds for the last words
    socket.setsockopt(zmq.SNDHWM, 0)  # updates wait for a slow caller, the engine does not
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.connect(start.address)
    try:
        core, sinks, timings = _build(start)
    except Exception as error:
        socket.send(wire.encode(wire.Failed(kind=type(error).__name__, error=str(error))))
        socket.close()
        return 1
    try:
        ready = wire.Ready(vocab_size=core.capacity.vocab_size, longest=core.roster.max_len, timings=timings)
        socket.send(wire.encode(ready))
        serve(core, socket)
    except Exception as error:
        socket.send(wire.encode(wire.Failed(kind=type(error).__name__, error=str(error))))
        return 1
    finally:
        sinks.close()
        core.executor.stop()
        if core.grammars is not None:
            core.grammars.close()
        socket.close()
    return 0


def serve(core: EngineCore, socket: Any) -> None:
    """Until told to stop: take messages, step while there is work, sleep while there is none."""
    figures = Gathered()
    while True:
        waiting = 0 if core.has_work else None
        while socket.poll(waiting):
            waiting = 0
            message = wire.decode_down(socket.recv())
            if isinstance(message, wire.Stop):
                return
            if isinstance(message, wire.Watch) and figures not in core.meter.listeners:
                core.meter.listeners.append(figures)
            refused = _handle(core, message, socket)
            if refused:
                socket.send(wire.encode(wire.Updates(refused)))
        if core.has_work and (updates := core.step()):
            socket.send(wire.encode(wire.Updates(updates)))
        if (news := figures.take(idle=not core.has_work)) is not None:
            socket.send(wire.encode(news))


def _handle(core: EngineCore, message: wire.Down, socket: Any) -> list[Update]:
    refused = []
    if isinstance(message, wire.Add):
        for new in message.requests:
            try:
                core.add(new)
            except RequestError as error:
                refused.append(
                    Update(request_id=new.request_id, token_ids=[], finish_reason="error", error=error.reason)
                )
    elif isinstance(message, wire.Abort):
        for request_id in message.request_ids:
            core.abort(request_id, FinishReason(message.reason))
    elif isinstance(message, wire.Reset | wire.AskStats):
        if isinstance(message, wire.Reset):
            core.cache.reset_prefix_cache()
        socket.send(wire.encode(_stats(core, message.call)))
    return refused


def _stats(core: EngineCore, call: int) -> wire.Stats:
    prefixes = core.cache.stats()
    return wire.Stats(
        call=call,
        running=len(core.roster.running),
        waiting=len(core.roster.requests) - len(core.roster.running),
        cache_usage=core.cache.usage,
        prefix_queries=prefixes.queries,
        prefix_hits=prefixes.hits,
    )


def _with_sources(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Plugins' settings as the caller has them: a value with its source is a table on the wire."""
    fields = {field.name for field in attrs.fields(Given)}
    return {
        name: {key: Given(**v) if isinstance(v, dict) and v.keys() == fields else v for key, v in table.items()}
        for name, table in tables.items()
    }


def _build(start: wire.Start) -> tuple[EngineCore, Sinks, dict[str, float]]:
    """The engine of these settings. ``LockMismatch`` if the choices made here are not the caller's."""
    from vllm_core.engine.build import start_executor
    from vllm_core.engine.resolve import resolve
    from vllm_core.plugins.errors import LockMismatch

    settings = EngineSettings(**{**start.settings, "plugin": _with_sources(start.settings["plugin"])})
    resolved = resolve(settings)
    if resolved.lock.digest != start.digest:
        raise LockMismatch(
            "the engine process made other choices than its caller.",
            why=f"lock {resolved.lock.digest[:12]} here, {start.digest[:12]} there: a package, a plugin or a "
            "configuration file was changed meanwhile",
            instead="start again",
        )
    executor, capacity = start_executor(resolved)
    sinks = open_sinks(resolved.sinks)
    core = EngineCore(
        settings,
        capacity,
        executor,
        max_model_len=resolved.build.model.max_model_len,
        max_step_tokens=resolved.max_step_tokens,
        policy=resolved.policy_target(),
        grammars=resolved.build.grammars,
    )
    if sinks:
        core.meter.listeners.append(sinks)
    return core, sinks, {**resolved.timings, **capacity.timings}


def _read_start(pipe: int) -> wire.Start:
    size = int.from_bytes(_read(pipe, 8), "little")
    return msgspec.msgpack.decode(_read(pipe, size), type=wire.Start)


def _read(pipe: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := os.read(pipe, size - len(found))):
            os._exit(1)  # the caller has gone before it said what to build
        found += more
    return found


def _end_with_the_caller(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)  # whatever the engine is doing: nobody waits for it


if __name__ == "__main__":
    sys.exit(main())
