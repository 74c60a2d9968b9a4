"""Records with every value that a metrics sink may be told, and how they are found again in what it sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from vllm_core.interfaces.metrics import RequestStats, StepStats

__all__ = ["full_requests", "full_steps", "holds", "values_of"]


def full_steps() -> list[StepStats]:
    """With numbers that are found again; the second has only what a step cannot lack."""
    counts = iter(range(1013, 10_000, 101))
    full = StepStats(
        **{
            field.name: next(counts)
            for field in attrs.fields(StepStats)
            if field.name not in ("seconds", "accepted_at", "first_tokens", "gaps", "extra")
        },
        seconds=0.03125, accepted_at=(71, 73), first_tokens=(0.28125,), gaps=((0.40625, 83),), extra={"owls": 0.59375},
    )  # fmt: skip
    bare = ("running", "waiting", "prompt_tokens", "output_tokens", "prefix_queries", "prefix_hits", "preemptions",
            "drafted", "accepted", "pages_used", "pages_total")  # fmt: skip
    empty = StepStats(seconds=0.0, **dict.fromkeys(bare, 0))  # type: ignore[arg-type]
    return [full, empty, attrs.evolve(full, step=7919), attrs.evolve(empty, step=7927)]


def full_requests() -> list[RequestStats]:
    """One for each reason; the second ended before it ran."""
    full = RequestStats(
        request_id="kit-0", finish_reason="stop", prompt_tokens=12011, cached_tokens=12037, output_tokens=12041,
        queued=0.53125, first_token=0.65625, between_tokens=0.71875, total=0.78125, prefill=0.84375, decode=0.90625,
        max_tokens=12043, preemptions=12049, drafted=12071, accepted=12073,
    )  # fmt: skip
    empty = RequestStats(
        request_id="1:kit-1/3", finish_reason="abort", prompt_tokens=12097, cached_tokens=0, output_tokens=0,
        queued=None, first_token=None, between_tokens=None, total=0.96875,
    )  # fmt: skip
    others = [attrs.evolve(full, request_id=f"kit-{why}", finish_reason=why) for why in ("length", "error")]
    return [full, empty, *others]


def values_of(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Texts and numbers of a record; zeros and what is missing are not told from nothing."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from values_of(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from values_of(value, name)
    elif tree:
        yield name, tree


def holds(text: str, value: Any) -> bool:
    if isinstance(value, str):
        return value in text
    return re.search(rf"(?<![\d.]){re.escape(repr(value))}(?!\d)", text) is not None
