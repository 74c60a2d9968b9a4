"""How many outputs are computed or wait to be; one too many is refused at once, with a time to come back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vllm_plugin_server.errors import ApiError

__all__ = ["Admission"]


class Admission:
    """Belongs to one event loop.

    held      outputs that are computed or wait
    refused   requests so far that were told to come back
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held, self.refused = limit, 0, 0
        self._seconds = 1.0  # that an output takes, of late

    def check(self) -> None:
        """Before a body is read: whether there is room for anything."""
        if self.held >= self.limit:
            raise self._full()

    @contextmanager
    def hold(self, outputs: int) -> Iterator[None]:
        """Room for so many outputs. More than the limit get in when nobody else is there."""
        if self.held and self.held + outputs > self.limit:
            raise self._full()
        self.held += outputs
        begun = time.monotonic()
        try:
            yield
        finally:
            self.held -= outputs
            self._seconds += (time.monotonic() - begun - self._seconds) / 16

    def _full(self) -> ApiError:
        self.refused += 1
        seconds = min(max(math.ceil(self._seconds / 2), 1), 60)  # on average half of what runs is over by then
        return ApiError(
            429,
            f"the server holds {self.held} outputs of at most {self.limit}; try again in {seconds} s",
            code="rate_limit_exceeded",
            headers={"retry-after": str(seconds)},
        )
