"""One line of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import attrs

Call = Callable[[], Any]


@attrs.frozen(kw_only=True)
class Case:
    """A kernel on one shape.

    make       inputs of their own -> the launch on them, without arguments; called several times, so that what is
               measured does not lie in the L2 cache
    reference  the same in torch's own operations, or None
    before     makes what stands in front of either in a step; its own time does not count
    bytes      that must be read and written; ``flops``: operations
    major      of the compute capability that it needs, if not any
    """

    kernel: str
    shape: str  # "T=8192 N=1024"
    dtype: str
    make: Callable[[], Call]
    reference: Callable[[], Call] | None = None
    before: Callable[[], Call] | None = None
    bytes: int
    flops: int = 0
    major: int | None = None

    def __str__(self) -> str:
        return f"{self.kernel} {self.shape} {self.dtype}"


def all_cases(modules: Iterable[str] = ()) -> Iterator[Case]:
    """Those of this package, then of ``modules``, each with a function ``cases``."""
    import vllm_kernels.bench as here

    names = [f"{here.__name__}.{m.name}" for m in iter_modules(here.__path__) if m.name.startswith("cases_")]
    for name in (*names, *modules):
        yield from import_module(name).cases()
