"""The process that compiles grammars: ``python -m vllm_core.engine.grammar_child``, started by `grammar_apart`.

Frames of msgpack on standard input and output: 8 bytes of length, then the message. Its parent ends it when a
specification takes too long, and nothing else is lost then.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any

import msgspec

from vllm_core.engine.pids import end_with_pipe
from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary

__all__ = ["Began", "Begin", "Refused", "Result", "Work", "main"]

GRACE = 0.5  # seconds
IDLE_SECONDS = 300.0  # then it ends, and gives its memory back
MEMORY = 4 << 30  # bytes of address space beyond what it has when it begins


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message: whose grammars are compiled, and for which vocabulary."""

    target: str
    size: int
    token_bytes: list[bytes]
    stop_ids: list[int]
    special: dict[int, str]
    options: dict[str, Any]


class Work(msgspec.Struct, frozen=True):
    """Every further message."""

    spec: GrammarSpec
    seconds: float


class Began(msgspec.Struct, frozen=True, tag=True):
    """The answer to it: the library is there."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The specification is wrong, or cannot be done."""

    reason: str


class Result(msgspec.Struct, frozen=True, tag=True):
    data: bytes


def main() -> int:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group they reach all; the parent decides
        signal.signal(ignored, signal.SIG_IGN)
    end_with_pipe(0)  # whatever runs here
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    begin = msgspec.msgpack.decode(_frame(None) or b"", type=Begin)
    try:
        backend = _backend(begin)
    except Exception as error:
        _answer(answers, Refused(f"{type(error).__name__}: {error}"))
        return 1
    _limit_memory()
    _answer(answers, Began())
    decode = msgspec.msgpack.Decoder(Work).decode
    while (frame := _frame(IDLE_SECONDS)) is not None:
        work = decode(frame)
        # The parent ends this process in time. If there is no parent any more, the system does, whatever runs here.
        signal.setitimer(signal.ITIMER_REAL, work.seconds + GRACE)
        answer = _export(backend, work.spec)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(answers, answer)
    return 0


def _backend(begin: Begin) -> Any:
    from vllm_core.plugin import load_target

    vocabulary = Vocabulary(
        size=begin.size, token_bytes=begin.token_bytes, stop_ids=tuple(begin.stop_ids), special=begin.special
    )
    return load_target(begin.target)(vocabulary, begin.options)


def _export(backend: Any, spec: GrammarSpec) -> Refused | Result:
    try:
        return Result(backend.export(spec))
    except ValueError as error:
        return Refused(str(error))
    except Exception as error:
        return Refused(f"{type(error).__name__}: {error}")


def _limit_memory() -> None:
    """A specification may not take the machine's memory."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # only Linux tells
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def _frame(idle: float | None) -> bytes | None:
    """The next message; None: nobody writes any more, or nothing came for so long."""
    if idle is not None and not select.select([0], [], [], idle)[0]:
        return None
    head = _read(8)
    return None if head is None else _read(int.from_bytes(head, "little"))


def _read(size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        if not (more := os.read(0, min(size - len(found), 1 << 20))):
            return None
        found += more
    return bytes(found)


def _answer(pipe: int, message: Any) -> None:
    data = msgspec.msgpack.encode(message)
    rest = memoryview(len(data).to_bytes(8, "little") + data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


if __name__ == "__main__":
    sys.exit(main())
