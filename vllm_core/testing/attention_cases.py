"""What attention backends are tried on: settings of a layer, and batches that it meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import AttentionQuery

BATCHES: Mapping[str, Sequence[tuple[int, int]]] = {
    "a prompt": [(0, 50)],
    "prompts": [(0, 33), (0, 1), (0, 16), (0, 70)],
    "chunks": [(16, 16), (45, 20), (3, 40)],
    "one decodes": [(37, 1)],
    "many decode": [(0, 1), (1, 1), (200, 1), (15, 1), (16, 1), (17, 1), (90, 1)],
    "drafts": [(20, 4), (31, 4), (7, 3), (64, 1), (0, 5)],
    "idle rows": [(12, 0), (30, 1), (0, 0), (5, 6), (40, 0)],
    "all at once": [(5, 1), (0, 33), (60, 5), (48, 1), (16, 20), (9, 0), (2, 5), (0, 1), (100, 2)],
}
"""Name -> sequences as (tokens cached before, query tokens)."""

DTYPES = ("float32", "bfloat16", "float16")
USUAL = {"num_heads": 8, "num_kv_heads": 2, "k_dim": 64, "v_dim": 64}


@attrs.frozen(kw_only=True)
class AttentionCase:
    """A layer's settings, beside ``USUAL`` ones, and a batch."""

    name: str
    batch: str
    settings: Mapping[str, object]  # fields of AttentionQuery
    stale: bool = False  # slots that hold nothing hold old keys and values instead of NaN

    def __str__(self) -> str:
        return f"{self.name}-{self.batch}"

    def query(self, device: Device) -> AttentionQuery:
        return make_query(self.settings, device)


FEATURES: Mapping[str, Mapping[str, object]] = {
    **{dtype: {"dtype": dtype} for dtype in DTYPES},
    "window": {"window": 20},
    "soft_cap": {"soft_cap": 2.5},
    "sinks": {"sinks": True},
    "non_causal": {"causal": False},
    "lse": {},
    "v_dim": {"k_dim": 96, "v_dim": 64},  # values of another size than keys
    "group_1": {"num_heads": 3, "num_kv_heads": 3},
    "group_8": {"num_heads": 16, "num_kv_heads": 2},
    "mqa": {"num_heads": 6, "num_kv_heads": 1},
    "head_size_80": {"k_dim": 80, "v_dim": 80},
    "head_size_128": {"k_dim": 128, "v_dim": 128},
    "head_size_256": {"k_dim": 256, "v_dim": 256},
}
"""What a backend may be unable to do -> the settings that ask for it. ``cannot`` is written in these names."""


def asks(settings: Mapping[str, object]) -> frozenset[str]:
    """The features that settings ask for."""
    query = make_query(settings, Device("cpu"))
    group, sizes = query.num_heads // query.num_kv_heads, (query.k_dim, query.v_dim)
    found = {
        query.dtype: True,
        "window": query.window is not None,
        "soft_cap": query.soft_cap is not None,
        "sinks": query.sinks,
        "non_causal": not query.causal,
        "v_dim": sizes[0] != sizes[1],
        "mqa": query.num_kv_heads == 1,
        f"group_{group}": group in (1, 8),
        f"head_size_{sizes[0]}": sizes[0] == sizes[1] and sizes[0] != USUAL["k_dim"],
    }
    return frozenset(name for name, asked in found.items() if asked)


def make_query(settings: Mapping[str, object], device: Device) -> AttentionQuery:
    """The query of a layer with these settings beside the usual ones."""
    given = {"window": None, "causal": True, "soft_cap": None, "sinks": False, "dtype": DTYPES[0], **USUAL, **settings}
    kind = "full" if given["window"] is None else "sliding_window"
    return AttentionQuery(kind=kind, kv_dtype=given["dtype"], device=device, **given)  # type: ignore[arg-type]


def grid(plain: Mapping[str, object]) -> list[AttentionCase]:
    """Every batch with ``plain`` settings, every feature by itself, and features that models combine."""

    def case(name: str, batch: str, settings: Mapping[str, object], **more: object) -> AttentionCase:
        return AttentionCase(name=name, batch=batch, settings={**plain, **settings}, **more)  # type: ignore[arg-type]

    found = [case("plain", batch, {}) for batch in BATCHES]
    found += [case("old values", "all at once", {}, stale=True)]
    for name, settings in _variants().items():
        found += [case(name, batch, settings) for batch in ("all at once", *_MORE_BATCHES.get(name, ()))]
    return found


_MORE_BATCHES = {
    "window 7": ("many decode", "chunks", "a prompt"),
    "window 20": ("drafts", "idle rows"),
    "soft_cap": ("many decode", "a prompt"),
    "sinks": ("many decode", "a prompt"),
    "non_causal": ("many decode", "chunks", "a prompt"),
    "v_dim": ("many decode", "a prompt"),
}


def _variants() -> dict[str, Mapping[str, object]]:
    alone = {name: settings for name, settings in FEATURES.items() if settings and name != "window"}
    return {
        **alone,
        "window 1": {"window": 1},
        "window 7": {"window": 7},
        "window 20": {"window": 20},
        "larger v_dim": {"k_dim": 64, "v_dim": 96},
        "window and sinks": {"window": 16, "sinks": True, "num_heads": 16},
        "window and soft_cap": {"window": 24, "soft_cap": 4.0, "k_dim": 128, "v_dim": 128},
        "sinks and soft_cap": {"sinks": True, "soft_cap": 3.0, "num_heads": 3, "num_kv_heads": 3},
        "window without causality": {"window": 9, "causal": False},
        "v_dim, sinks and mqa": {"k_dim": 96, "v_dim": 64, "sinks": True, "num_kv_heads": 1},
        "half with window, sinks and soft_cap": {"dtype": "bfloat16", "window": 20, "sinks": True, "soft_cap": 5.0},
        "half without causality": {"dtype": "float16", "causal": False},
        "half with v_dim": {"dtype": "bfloat16", "k_dim": 96, "v_dim": 64},
    }
