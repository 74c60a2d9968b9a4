"""What a plugin author imports. Importing this module imports no torch.

A plugin is a light module named by an entry point of the group ``vllm_core.plugins``. It
holds the literal ``HOOK_API = 1`` and functions marked ``@hookimpl``; each hook is specified
in ``vllm_core.hookspecs``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import attrs
import pluggy

__all__ = [
    "HOOK_API",
    "OLDEST_HOOK_API",
    "BundledModel",
    "Command",
    "Endpoint",
    "ModelEntry",
    "Offer",
    "Provides",
    "Rank",
    "Refusal",
    "hookimpl",
    "load_target",
]

HOOK_API: Final = 1
"""The newest hook API that this core speaks. It rises with a change that breaks plugins (docs/compatibility.md)."""

OLDEST_HOOK_API: Final = 1
"""The oldest that it speaks: a plugin written for an older one is quarantined."""


class _Marker:
    """Marks hook implementations, and remembers them: importing ``pkg.model`` hides a function ``model`` of pkg."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Any]] = {}  # module -> name -> function
        self._mark = pluggy.HookimplMarker("vllm_core")

    def __call__(self, function: Any = None, **options: Any) -> Any:
        if function is None:
            return lambda function: self(function, **options)
        self.functions.setdefault(function.__module__, {})[function.__name__] = function
        return self._mark(function, **options)


hookimpl = _Marker()
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _is_target(instance: Any, attribute: attrs.Attribute, value: str) -> None:
    if not isinstance(value, str) or not _TARGET.fullmatch(value):
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must look like 'package.module:Name', not {value!r}"
        )


def _is_name(instance: Any, attribute: attrs.Attribute, value: str) -> None:
    if not isinstance(value, str) or not value or any(c.isspace() or not c.isprintable() or c in ":," for c in value):
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must be a name without spaces, ':' or ',', not {value!r}"
        )


def _is_command(instance: Any, attribute: attrs.Attribute, value: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s:,]+( [^\s:,]+)?", value):
        raise ValueError(
            f"{type(instance).__name__}.{attribute.name} must be a name, or a group's and a name, not {value!r}"
        )


def _line(value: str) -> str:
    """For lists in a terminal: one line, no control characters."""
    return "".join(c if c.isprintable() else " " for c in value)


def _frozen_mapping(value: Mapping) -> Mapping:
    return MappingProxyType(dict(value))


def _names(value: Iterable[str]) -> frozenset[str]:
    return frozenset(value)


def _formats(value: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({k: (v,) if isinstance(v, str) else tuple(v) for k, v in value.items()})


def load_target(target: str) -> Any:
    """Import ``"module:Name"`` and return the object."""
    module, _, name = target.partition(":")
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Rank(enum.IntEnum):
    """The one public ladder by which offers are compared."""

    REFERENCE = 0  # correct everywhere, fast nowhere
    PORTABLE = 1  # good on every device it accepts
    TUNED = 2  # measured to be the better choice on this device


@attrs.frozen(kw_only=True)
class Offer:
    """A plugin's "yes" to a query.

    ``takes`` and ``gives`` map a slot (``"kv.page_layout"``, ``"moe.activation"``) to the
    formats accepted or produced there, best first. A set of offers is compatible when each
    slot that somebody gives has a format that all who give and take it share.
    """

    name: str = attrs.field(validator=_is_name)  # as users write it, e.g. in --attention-backend
    target: str = attrs.field(validator=_is_target)  # imported when it won, in every worker
    rank: Rank = attrs.field(default=Rank.PORTABLE, converter=Rank)
    takes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_formats)
    gives: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_formats)
    needs: tuple[str, ...] = attrs.field(default=(), converter=tuple)  # partners, as "kind:name"
    capabilities: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    options: Mapping[str, Any] = attrs.field(factory=dict, converter=_frozen_mapping)  # plain data for the target


@attrs.frozen
class Refusal:
    """A plugin's "this is mine, and I cannot": the reason reaches the user."""

    reason: str
    name: str = attrs.field(default="", kw_only=True)  # which of the plugin's offers; "" if it has one
    remedy: str = attrs.field(default="", kw_only=True)
    lacks: str = attrs.field(default="", kw_only=True)  # the partner it would need, as "kind:name"


@attrs.frozen
class Provides:
    """One line of a plugin's listing: ``kind`` is the hook's name, ``name`` what users write."""

    kind: str = attrs.field(validator=_is_name)
    name: str = attrs.field(validator=_is_name)
    summary: str = attrs.field(default="", converter=_line)


@attrs.frozen
class ModelEntry:
    """One architecture a plugin can serve, named but not yet imported."""

    architecture: str = attrs.field(validator=_is_name)  # as in config.json "architectures"
    target: str = attrs.field(validator=_is_target)  # a class with the surface of interfaces.model.Model
    needs: frozenset[str] = attrs.field(default=frozenset(), converter=_names)  # asked of the platform

    def load(self) -> type:
        return load_target(self.target)


@attrs.frozen
class BundledModel:
    """A model whose files come with an installed package.

    ``target`` names a function without arguments that returns the path of a checkpoint, or
    raises ``FileNotFoundError`` with a remedy; then ``hub_id`` (if any) is downloaded.
    """

    name: str = attrs.field(validator=_is_name)
    target: str = attrs.field(validator=_is_target)
    hub_id: str = ""
    summary: str = attrs.field(default="", converter=_line)


@attrs.frozen
class Command:
    """A sub-command of ``vllm-core``; ``target`` is a class with the contract of interfaces.command.

    A name of two words joins a group of commands: ``"bench serve"`` is ``vllm-core bench serve``.
    """

    name: str = attrs.field(validator=_is_command)
    target: str = attrs.field(validator=_is_target)
    summary: str = attrs.field(default="", converter=_line)


@attrs.frozen
class Endpoint:
    """An HTTP route; ``target`` is a factory with the contract of interfaces.endpoint."""

    path: str
    target: str = attrs.field(validator=_is_target)
    methods: tuple[str, ...] = attrs.field(default=("GET",), converter=tuple)
    summary: str = attrs.field(default="", converter=_line)
