"""Settings as another process of the same engine has them: plain data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.plugins.errors import LockMismatch

__all__ = ["Recipe", "settings_of"]


@attrs.frozen
class Recipe:
    """What another process resolves to the same choices, with `engine.resolve.resolve`."""

    settings: Mapping[str, Any]  # ``EngineSettings`` as plain data
    digest: str  # of the lock that comes of it


def settings_of(plain: Mapping[str, Any]) -> EngineSettings:
    """From ``attrs.asdict`` of settings, perhaps as a message. ``LockMismatch`` if it is of other settings."""
    known = {field.name for field in attrs.fields(EngineSettings)}
    if different := sorted(known.symmetric_difference(plain)):
        raise LockMismatch(
            "the engine's settings are of another version of vllm-core.",
            why=f"only one of the two has {', '.join(different)}",
            instead="give every process and every host the same packages",
        )
    return EngineSettings(**{**plain, "plugin": _with_sources(plain["plugin"])})


def _with_sources(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Plugins' settings: a value with its source is a table in plain data."""
    fields = {field.name for field in attrs.fields(Given)}
    return {
        name: {key: Given(**v) if isinstance(v, dict) and v.keys() == fields else v for key, v in table.items()}
        for name, table in tables.items()
    }
