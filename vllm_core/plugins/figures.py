"""Figures recorded by benchmarks on this machine: how long an offer took, by device and shape class.

One JSON file in ``$XDG_DATA_HOME/vllm-core``. They decide only among offers of equal rank.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from vllm_core.interfaces.device import Device

__all__ = ["lookup", "record", "shape_class"]


def _file() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(home) / "vllm-core" / "figures.json"


def record(kind: str, name: str, device: Device, shape_class: str, seconds: float) -> None:
    """Keep a figure, replacing an older one for the same key."""
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0, not {seconds!r}")
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _read()
    rows[_key(kind, name, device, shape_class)] = seconds
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(rows, indent=1, sort_keys=True))
    part.replace(path)


def lookup(kind: str, name: str, device: Device, shape_class: str) -> float | None:
    """Seconds, or None if it was never measured here."""
    value = _read().get(_key(kind, name, device, shape_class))
    return float(value) if isinstance(value, int | float) and value > 0 else None


def shape_class(query: Any) -> str:
    """The query in words, less its device, with whole numbers rounded up to a power of two.

    Nearby shapes share their figures: 3000 tokens and 4000 tokens are one class.
    """
    return json.dumps(_rounded(attrs.asdict(query, recurse=False) if attrs.has(type(query)) else query), sort_keys=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items() if not isinstance(v, Device)}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        return 1 << (value - 1).bit_length()
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _key(kind: str, name: str, device: Device, shape_class: str) -> str:
    return " | ".join((kind, name, device.name or device.type, shape_class))


def _read() -> dict[str, Any]:
    try:
        rows = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return rows if isinstance(rows, dict) else {}
