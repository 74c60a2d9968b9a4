"""The set of malformed and hostile requests, a group a file."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_plugin_server.testing.case import Case
from vllm_plugin_server.testing.cases import (
    bodies,
    chat,
    grammars,
    http,
    messages,
    responses,
    sampling,
    tokens,
)

__all__ = ["all_cases"]

_MODULES = (bodies, sampling, tokens, chat, grammars, responses, messages, http)


def all_cases(model: str) -> list[Case]:
    """Every case, for a server that serves ``model``. Names are unique."""
    found: list[Case] = []
    for module in _MODULES:
        found += module.cases(model)
    _check_unique(found)
    return found


def _check_unique(found: Iterable[Case]) -> None:
    seen: set[str] = set()
    for case in found:
        name = f"{case.group}/{case.name}"
        if name in seen:
            raise ValueError(f"two cases are called {name}")
        seen.add(name)
