"""A process that compiles grammars and can be ended: for libraries that cannot be held to a time limit."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import msgspec

from vllm_core.engine.grammar_child import Began, Begin, Refused, Result, Work
from vllm_core.engine.pids import is_over
from vllm_core.interfaces.grammar import GrammarSpec, Vocabulary
from vllm_core.plugin import load_target

__all__ = ["ApartCompiler", "CompilerLost", "compiler_of", "is_apart"]

START_SECONDS = 120.0  # to import the library and read the vocabulary
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Began | Refused | Result).decode


class CompilerLost(RuntimeError):
    """The process ended by itself while it compiled: a crash, or too much memory."""


def is_apart(target: str) -> bool:
    """Whether a backend of this target compiles in a process of its own."""
    return bool(getattr(load_target(target), "apart", False))


def compiler_of(target: str) -> str:
    """What the process makes for a backend of this target."""
    return str(getattr(load_target(target), "compiler", target))


class ApartCompiler:
    """``export`` compiles one specification at a time; the process is started when it is needed, or by ``begin``.

    target   of an ``interfaces.grammar.GrammarCompiler``

    It ends when nobody has needed it for a while, and when this process does: its input is closed then.
    """

    def __init__(self, target: str, vocabulary: Vocabulary, options: Mapping[str, Any]) -> None:
        self._begin = Begin(
            target=target,
            size=vocabulary.size,
            token_bytes=list(vocabulary.token_bytes),
            stop_ids=list(vocabulary.stop_ids),
            special=dict(vocabulary.special),
            options=dict(options),
        )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize | None = None

    def begin(self) -> None:
        """Start the process ahead. If it cannot be started, ``export`` says so."""
        with self._lock, contextlib.suppress(Exception):
            self._running()

    def export(self, spec: GrammarSpec, seconds: float) -> bytes:
        """What the backend's ``restore`` takes. ``TimeoutError``, and the process is gone; ``ValueError`` as it said.

        The time that others take, and that the process takes to start, does not count.
        """
        with self._lock:
            answer = self._export(_encode(Work(spec, seconds)), seconds)
        if isinstance(answer, Refused):
            raise ValueError(answer.reason)
        if not isinstance(answer, Result):
            raise CompilerLost("the process that compiles answered something else")
        return answer.data

    def close(self) -> None:
        """End the process, whatever it does."""
        end, self._end, self._process = self._end, None, None
        if end is not None:
            end()

    def _export(self, message: bytes, seconds: float) -> Any:
        """Once more by another process, if this one has ended: it may have been killed just as this came."""
        left, again = seconds, True
        while True:
            process, begun = self._running(), time.monotonic()
            try:
                return self._ask(process, message, left)
            except CompilerLost:
                self.close()
                if not again:
                    raise
                left, again = left - (time.monotonic() - begun), False
            except (TimeoutError, OSError):
                self.close()
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        # Not ``poll``: it knows nothing as long as the thread below waits, which may not have seen the end yet.
        process = self._process
        if process is not None and process.stdout is not None and not is_over(process.stdout.fileno()):
            return process
        self.close()
        command = [sys.executable, "-m", "vllm_core.engine.grammar_child"]
        # It computes on the host alone, with one thread.
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._process, self._end = process, weakref.finalize(self, _kill, process)
        # It ends by itself when nobody needs it: no dead process is left then.
        threading.Thread(target=process.wait, daemon=True, name="vllm-core-grammar-end").start()
        try:
            answer = self._ask(process, _encode(self._begin), START_SECONDS)
        except BaseException:
            self.close()
            raise
        if isinstance(answer, Refused):
            self.close()
            raise CompilerLost(f"the process that compiles cannot be started: {answer.reason}")
        return process

    def _ask(self, process: subprocess.Popen[bytes], message: bytes, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(len(message).to_bytes(8, "little") + message)
            process.stdin.flush()
        except BrokenPipeError:
            raise CompilerLost("the process that compiles has ended") from None
        size = int.from_bytes(_read(process.stdout.fileno(), 8, deadline), "little")
        return _decode(_read(process.stdout.fileno(), size, deadline))


def _read(pipe: int, size: int, deadline: float) -> bytes:
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(found) < size:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            more = os.read(pipe, min(size - len(found), 1 << 20))
            if not more:
                raise CompilerLost("the process that compiles ended over this specification")
            found += more
    return bytes(found)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                pipe.close()
