"""The longest sequence that a cache holds: asked before there is one, and again by the scheduler."""

from __future__ import annotations

from collections.abc import Callable


def longest_sequence(needed: Callable[[int], int], pages: int, limit: int) -> int:
    """The most tokens up to ``limit`` for which ``pages`` suffice.

    ``needed(tokens)`` says how many pages so many tokens take; it never falls as tokens grow.
    """
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= pages else (low, middle - 1)
    return low
