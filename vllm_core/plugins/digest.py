"""Digests of plain data that do not depend on the process, the order of keys, or Python's hash seed."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

__all__ = ["canonical", "digest"]


def canonical(value: Any) -> Any:
    """Records, mappings, sequences and sets as dicts and lists of plain values, in a fixed order.

    ``TypeError`` for anything else: what cannot be written down cannot be locked.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, enum.Enum):
        return canonical(value.value)
    if attrs.has(type(value)):
        return {field.name: canonical(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, set | frozenset):
        return sorted((canonical(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not plain data: {value!r:.80}")


def digest(value: Any) -> str:
    """sha256 in hex of a value's canonical form."""
    return hashlib.sha256(msgspec.msgpack.encode(canonical(value), order="deterministic")).hexdigest()
