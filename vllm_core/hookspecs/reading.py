"""Hook docstrings, read: the six fixed headings, and the contract that answers must meet."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import attrs

from vllm_core.hookspecs import HOOKS, HookInfo
from vllm_core.hookspecs.marker import HookDeprecation

__all__ = ["HEADINGS", "Specification", "read_hook"]

HEADINGS = ("When", "query", "Returns", "Choice", "Errors", "Since")
_HEADING = re.compile(r"([A-Za-z]+)(?:  +|$)(.*)")
_CONTRACT = re.compile(r"``((?:interfaces\.\w+|plugin|config\.setting)\.\w+)``")


@attrs.frozen(kw_only=True)
class Specification:
    """What a hook's docstring and signature say."""

    info: HookInfo
    summary: str
    sections: dict[str, str]  # by heading, in order
    query: str  # name of the query's class in interfaces.queries, "" for listings
    contracts: tuple[str, ...]  # dotted names below vllm_core
    deprecated: tuple[HookDeprecation, ...] = ()  # of the hook, or of its arguments


def read_hook(name: str) -> Specification:
    """``ValueError`` if the docstring is not as all others are."""
    info = HOOKS[name]
    function = getattr(import_module(info.module), name)
    summary, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    sections: dict[str, list[str]] = {}
    for line in rest.splitlines():
        found = _HEADING.fullmatch(line)
        if found:
            sections[found[1]] = [found[2]]
        elif sections and (line.startswith(" ") or not line):
            sections[list(sections)[-1]].append(line.strip())
        else:
            raise ValueError(f"hook {name}: {line!r} stands under no heading")
    if tuple(sections) != HEADINGS:
        raise ValueError(f"hook {name}: headings are {', '.join(sections)}, not {', '.join(HEADINGS)}")
    texts = {heading: " ".join(lines).strip() for heading, lines in sections.items()}
    return Specification(
        info=info,
        summary=" ".join(summary.split()),
        sections=texts,
        query=_query(function),
        contracts=tuple(dict.fromkeys(_CONTRACT.findall(texts["Returns"]))),
        deprecated=_deprecated(function),
    )


def _query(function: Any) -> str:
    return str(inspect.get_annotations(function).get("query", ""))


def _deprecated(function: Any) -> tuple[HookDeprecation, ...]:
    said = function.vllm_core_spec
    return tuple(w for w in (said["warn_on_impl"], *(said["warn_on_impl_args"] or {}).values()) if w is not None)
