"""Progress bars: on standard error, and only if a person looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress", "requests_bar"]


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], Any]]:
    """What is called in the block advances the bar by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=what, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
        yield bar.update


def requests_bar(what: str) -> Any:
    """For ``LLM.generate(use_tqdm=...)``: a bar over its requests, or none."""
    if not sys.stderr.isatty():
        return False
    from tqdm import tqdm

    def make(**arguments: Any) -> Any:
        given = {**arguments, "desc": what, "file": sys.stderr, "dynamic_ncols": True, "leave": False}
        return tqdm(**given)

    return make
