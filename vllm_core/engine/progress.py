"""How far the reading of weights is, on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["LoadingLine", "loading_line"]

PATIENCE = 1.0  # seconds without a word: most models of a laptop are there by then
PAUSE = 0.1  # seconds between two updates


class LoadingLine:
    """``interfaces.weights.Progress``: one line, rewritten. Silent while loading is quick."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + PATIENCE
        self._shown = False

    def __call__(self, done: int, total: int, name: str) -> None:
        now = time.monotonic()
        if done < total and now < self._next:
            return
        if done < total:
            self._next, self._shown = now + PAUSE, True
            self._stream.write(f"\rreading weights: {done / 1e9:.1f} of {total / 1e9:.1f} GB ({done / total:.0%})")
        elif self._shown:
            self._stream.write(f"\r{'':<60}\r")
        self._stream.flush()


def loading_line() -> LoadingLine | None:
    """None where nobody would see it."""
    return LoadingLine(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else None
