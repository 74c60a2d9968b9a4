"""When the host itself has no memory left for a moment."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

__all__ = ["again"]

T = TypeVar("T")
log = logging.getLogger(__name__)


def again(make: Callable[[], T], what: str) -> T:
    """What ``make`` gives, which must have no effect if it fails: tried once more after a ``MemoryError``."""
    try:
        return make()
    except MemoryError:
        pass  # behind the handler, because its traceback holds what was made so far
    log.warning("not enough memory to %s; it is tried once more", what)
    gc.collect()
    return make()
