"""What plugins implement that goes: pluggy warns of it while they are registered, here it gets their name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from vllm_core.hookspecs.marker import HookDeprecation

__all__ = ["gathered", "warn"]


@contextmanager
def gathered() -> Iterator[list[warnings.WarningMessage]]:
    """``with gathered() as found``: afterwards the deprecations of hooks are in ``found``; other warnings go on."""
    found: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HookDeprecation)
        yield found
    for one in caught:
        if isinstance(one.message, HookDeprecation):
            found.append(one)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def warn(whose: str, found: list[warnings.WarningMessage]) -> None:
    """As Python's warnings, with the plugin's name, at the place of its implementation."""
    for one in found:
        warnings.warn_explicit(f"plugin {whose}: {one.message}", DeprecationWarning, one.filename, one.lineno)
