"""What this package offers: op -> target and limits. No torch.

Conventions for modules here (tests go through all of them):

- A module that makes a `kernel.Kernel` has a function ``variants() -> list[Variant]`` (`variant.Variant`): each file it
  compiles, with every set of defines that it may ask for and the names that it takes. Its kernels are made from these
  (or from the same defines), so that tests/test_sources.py compiles all of it for sm_80 and sm_90a without a GPU and
  refuses spills; every ``cuda/*.cu`` must be named by somebody.
- Importing a module compiles nothing and needs no GPU; a target's ``__call__(query)`` makes its kernels.
- Figures: ``vllm_kernels/bench/cases_<topic>.py`` has ``cases() -> Iterator[Case]`` (`bench.case.Case`); found by its
  name, run by ``python -m vllm_kernels.bench``. A package elsewhere names its module: ``--cases my_package.cases``.
- A target is named here, in `OPS`, with the capabilities it has and a function ``limits(query)``.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from vllm_core.interfaces.queries import OpQuery

GRAPH = frozenset({"graph"})
INVARIANT = frozenset({"graph", "batch_invariant"})
"""Besides, a row's result does not depend on the other rows of the batch."""


def no_limits(query: OpQuery) -> str:
    return ""


@attrs.frozen
class Entry:
    """``limits`` says why a query cannot be served, or ""."""

    target: str
    limits: Callable[[OpQuery], str] = no_limits
    capabilities: frozenset[str] = GRAPH


OPS: dict[str, Entry] = {}

SAMPLER: str | None = None
