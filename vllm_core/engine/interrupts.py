"""Ctrl-C between steps instead of within one, so that an interrupted engine can still be used."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["InterruptsHeld"]


class InterruptsHeld:
    """A context manager: Ctrl-C in its block is delivered at the block's end, to whoever handled it before.

    A second Ctrl-C is delivered at once: the user will not wait for a block that takes too long.
    Signals reach the main thread only, so in other threads there is nothing to hold.
    """

    def __init__(self) -> None:
        self._handler: Any = None  # what handles Ctrl-C outside of the block; None: nothing is held
        self._held: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> InterruptsHeld:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        if self._held is not None:
            self._handler(*self._held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._held is not None:
            self._handler(number, frame)
        self._held = number, frame
