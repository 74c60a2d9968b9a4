"""When Python looks for cycles of garbage: seldom, and while few requests would wait for it.

Looking through all objects takes more than a second with thousands of open streams, during which nobody is served.
Most garbage needs no looking for, and young cycles are still found at once.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time

__all__ = ["Collector"]

YOUNG = 10_000, 5  # new objects until the youngest are looked through; how often that is until the next older
FEW = 64  # open requests: a pause of some milliseconds
M_MMAP_THRESHOLD, LARGE = -3, 1 << 20  # bytes: a block from this size on goes back to the system when it is freed
EVERY, AT_LEAST = 60.0, 1800.0  # seconds between two looks: while few requests are open, and whatever is open


class Collector:
    """``start`` when all that stays is loaded, then ``tick`` now and then."""

    def start(self) -> None:
        gc.collect()
        gc.freeze()  # what is there by now stays: it need not be looked at again
        gc.set_threshold(*YOUNG, 1_000_000)
        self._last = time.monotonic()
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._trim = getattr(libc, "malloc_trim", None)
        if (mallopt := getattr(libc, "mallopt", None)) is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE)

    def tick(self, open_requests: int) -> None:
        waited = time.monotonic() - self._last
        if waited > AT_LEAST or (waited > EVERY and open_requests <= FEW):
            gc.collect()
            if self._trim is not None:
                self._trim(0)  # what large requests took goes back to the system
            self._last = time.monotonic()
