"""What users write, made into the type that a setting is annotated with."""

from __future__ import annotations

import functools
import json
import os
import re
import types
import typing
from typing import Any

import attrs

from vllm_core.config.declared import Declared
from vllm_core.config.errors import SettingError, did_you_mean

__all__ = ["Given", "convert"]

_YES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a table", list: "a list"}


@attrs.frozen
class Given:
    """A value somebody gave, and where: ``"--max-model-len"``, ``"[engine] of ./vllm.toml"``."""

    value: Any
    source: str
    text: bool = False  # written as text (a flag, the environment), so that "8" may mean 8


def convert(setting: Declared, given: Given) -> Any:
    """The typed and checked value. ``SettingError`` names the setting, the value and its source."""
    try:
        value = _read(setting, given.value) if given.text else _checked(setting, given.value)
        if setting.attribute.validator is not None:
            setting.attribute.validator(None, setting.attribute, value)
    except (ValueError, TypeError) as error:
        known = [str(c) for c in setting.choices]
        hint = did_you_mean(str(given.value), known) if known else ""
        text = str(error).rstrip(".?")
        raise SettingError(f"{text}{hint}{'' if hint else '.'}\n  where   {given.source}") from None
    return value


def _read(setting: Declared, text: str) -> Any:
    """From text: JSON for tables, JSON or commas for lists, ``none`` where None is allowed."""
    kind = typing.get_origin(setting.type) or setting.type
    if setting.optional and text.lower() in ("none", "null"):
        return None
    if kind is bool:
        if text.lower() not in _YES:
            raise _wrong(setting, text)
        return _YES[text.lower()]
    if kind is int and setting.unit == "bytes" and (size := _SIZE.fullmatch(text)):
        base = 1024 if "i" in size[2].lower() else 1000
        return int(float(size[1]) * base ** _POWERS[size[2][0].lower()])
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise _wrong(setting, text) from None
    if _is_plain_union(setting.type):
        return _first_that_fits(setting, text)
    if kind is list and not text.lstrip().startswith("["):
        return _checked(setting, [item.strip() for item in text.split(",") if item.strip()])
    if kind in (dict, list, tuple, set):
        try:
            return _checked(setting, json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{setting.name} must be JSON: {error.msg} at character {error.pos} of {text!r}") from None
    return _checked(setting, text)


def _first_that_fits(setting: Declared, text: str) -> Any:
    """For ``int | str``: a number if it reads as one."""
    for kind in (int, float, str):
        if kind in typing.get_args(setting.type):
            try:
                return kind(text)
            except ValueError:
                continue
    raise _wrong(setting, text)


def _checked(setting: Declared, value: Any) -> Any:
    """From a typed value: nothing is guessed, except that a whole number may stand for a float."""
    if value is None and setting.optional:
        return None
    if setting.function and callable(value):
        return value
    if setting.type in (str, int, float, bool):  # the common cases, without importing cattrs
        return _primitive(setting.type, value, setting.name)
    try:
        return _converter().structure(value, setting.type)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{setting.name} must be {_words(setting)}, not {value!r}{_detail(setting, error)}") from None


def _primitive(kind: type, value: Any, name: str) -> Any:
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} must be {_WORDS[kind]}, not {value!r}")
    return value


@functools.cache
def _converter() -> Any:
    """cattrs for nested types, as strict with primitives as above, and text is no list of letters."""
    import cattrs

    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=True)

    def sequence(value: Any, kind: Any) -> Any:
        if not isinstance(value, list | tuple | set):
            raise ValueError(f"{value!r} is no list")
        item = (typing.get_args(kind) or (Any,))[0]
        return typing.get_origin(kind)(converter.structure(x, item) for x in value)

    def union(value: Any, kind: Any) -> Any:
        if type(value) not in typing.get_args(kind):
            raise ValueError(f"{value!r} is none of {kind}")
        return value

    for primitive in (str, int, float, bool):
        converter.register_structure_hook(primitive, lambda value, kind: _primitive(kind, value, "an entry"))
    converter.register_structure_hook_func(lambda kind: typing.get_origin(kind) in (list, tuple, set), sequence)
    converter.register_structure_hook_func(_is_plain_union, union)
    return converter


def _is_plain_union(kind: Any) -> bool:
    args = typing.get_args(kind)
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and all(
        a in (str, int, float, bool, type(None)) for a in args
    )


def _detail(setting: Declared, error: Exception) -> str:
    """Which part of a table or list is wrong; cattrs' own errors about the whole add nothing."""
    return f" ({error})" if isinstance(error, ValueError) and not _is_plain_union(setting.type) else ""


def _wrong(setting: Declared, value: Any) -> ValueError:
    return ValueError(f"{setting.name} must be {_words(setting)}, not {value!r}")


def _words(setting: Declared) -> str:
    kind = typing.get_origin(setting.type) or setting.type
    if _is_plain_union(setting.type):
        return " or ".join(_WORDS[arg] for arg in typing.get_args(setting.type))
    words = _WORDS.get(kind, str(setting.type))
    return f"{words} ({setting.type})" if typing.get_args(setting.type) else words
