"""A class of settings, read back: what ``setting()`` declared, one record a field."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["Declared", "declared"]


@attrs.frozen(kw_only=True)
class Declared:
    """One setting."""

    name: str  # the field, the key in a file and the argument
    type: Any  # its annotation, less None
    optional: bool  # whether None is allowed
    default: Any
    help: str
    unit: str
    trade: str
    choices: tuple[Any, ...]
    low: float | None
    high: float | None
    group: str
    function: bool  # whether Python may give a function instead
    attribute: attrs.Attribute

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"VLLM_CORE_{self.name.upper()}"

    @property
    def shown_type(self) -> str:
        """``int``, ``list[str]``, ``JSON table``, ..."""
        origin = typing.get_origin(self.type) or self.type
        if origin is dict:
            return "table"
        return getattr(self.type, "__name__", str(self.type)) if origin is self.type else str(self.type)

    @property
    def shown_default(self) -> str:
        if self.default is None:
            return "none"
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return str(self.default) if self.default != "" else "none"


def declared(cls: type) -> dict[str, Declared]:
    """Every setting of an attrs class, in order. ``TypeError`` if a field was not made by ``setting()``."""
    return _declared(cls)


@functools.cache
def _declared(cls: type) -> dict[str, Declared]:
    if not attrs.has(cls):
        raise TypeError(f"{cls.__module__}:{cls.__qualname__} is not an attrs class")
    annotations = typing.get_type_hints(cls)
    found = {}
    for attribute in attrs.fields(cls):
        meta = attribute.metadata.get("setting")
        if meta is None:
            raise TypeError(f"{cls.__qualname__}.{attribute.name} is not declared with setting()")
        kind, optional = _without_none(annotations[attribute.name])
        default = attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        found[attribute.name] = Declared(
            name=attribute.name, type=kind, optional=optional, default=default, attribute=attribute, **meta
        )
    return found


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The type of written values, and whether None is one; functions cannot be written."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        args = typing.get_args(annotation)
        kinds = [a for a in args if a is not type(None) and typing.get_origin(a) is not Callable]
        return functools.reduce(lambda a, b: a | b, kinds), type(None) in args
    return annotation, False
