"""Calls into plugins that must end: made in a thread of their own, waited for against the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

__all__ = ["Overdue", "Patience"]


class Overdue(Exception):
    """A call had not ended in time. It may still run: Python cannot end it."""


class Patience:
    """``with Patience(seconds) as patience: patience.call(f)``: one thread for all calls of the block.

    The thread is a daemon, so a call that never ends keeps nobody from leaving the process. A call
    that neither ends nor lets other threads run (C code that keeps the interpreter's lock) is not
    noticed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # for each call
        self._work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns or raises; ``Overdue`` if it does neither in time. Not to be used after that."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="vllm-core-plugins", daemon=True)
            self._thread.start()
        self._work.put(function)
        try:
            result, error = self._done.get(timeout=self._seconds)
        except Empty:
            raise Overdue from None
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        while (function := self._work.get()) is not None:
            try:
                self._done.put((function(), None))
            except BaseException as error:
                self._done.put((None, error))

    def __enter__(self) -> Patience:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._work.put(None)
