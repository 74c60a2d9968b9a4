"""How long the stages of a start take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["timed"]


@contextmanager
def timed(into: dict[str, float], stage: str) -> Iterator[None]:
    """Note the seconds that the block takes, unless it fails."""
    start = time.perf_counter()
    yield
    into[stage] = time.perf_counter() - start
