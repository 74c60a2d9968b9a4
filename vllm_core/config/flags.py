"""Flags from declarations: ``--max-model-len``, ``--async-scheduling / --no-async-scheduling``."""

from __future__ import annotations

import argparse
import json
import typing
from collections.abc import Collection
from typing import Any

from vllm_core.config.convert import Given
from vllm_core.config.declared import Declared, declared
from vllm_core.config.errors import SettingError

__all__ = ["add_flags", "flag_help", "given_flags", "split_plugin_flags"]

_DEST = "setting:"  # no argument of a command can have this name


def add_flags(parser: argparse.ArgumentParser, cls: type, *, skip: Collection[str] = ()) -> None:
    """Add a flag for each setting, under the heading of its group."""
    groups: dict[str, Any] = {}
    for name, setting in declared(cls).items():
        if name in skip:
            continue
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group or "settings")
        action: dict[str, Any] = {"dest": _DEST + name, "default": None, "help": flag_help(setting).replace("%", "%%")}
        if setting.type is bool:
            groups[setting.group].add_argument(setting.flag, action=argparse.BooleanOptionalAction, **action)
        else:
            if (typing.get_origin(setting.type) or setting.type) is list:
                action["action"] = "append"
            groups[setting.group].add_argument(setting.flag, metavar=_metavar(setting), **action)


def given_flags(args: argparse.Namespace, cls: type) -> dict[str, Given]:
    """What was given on the command line, as ``overrides`` of ``load``."""
    found = {}
    for name, setting in declared(cls).items():
        value = getattr(args, _DEST + name, None)
        if isinstance(value, list):  # given so many times: one list
            value = value[0] if len(value) == 1 else json.dumps([item for text in value for item in _items(text)])
        if value is not None:
            found[name] = Given(value, setting.flag, text=isinstance(value, str))
    return found


def _items(text: str) -> list[str]:
    """The entries of one of several flags for the same list. Text that is no JSON is left as it is."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return [text]
    return [item.strip() for item in text.split(",") if item.strip()]


def flag_help(setting: Declared) -> str:
    """One paragraph: what it is, what is allowed, default and unit, what it trades."""
    parts = [setting.help]
    if setting.choices:
        parts.append(f"One of {', '.join(map(str, setting.choices))}.")
    if setting.default is not None and setting.default not in ("", {}, []):
        parts.append(f"Default: {setting.shown_default}{' ' + setting.unit if setting.unit else ''}.")
    elif setting.unit:
        parts.append(f"In {setting.unit}.")
    return " ".join([*parts, *([setting.trade] if setting.trade else [])])


def _metavar(setting: Declared) -> str:
    kind = typing.get_origin(setting.type) or setting.type
    return {int: "N", float: "X", dict: "JSON", list: "A,B"}.get(kind, setting.name.split("_")[-1].upper())


def split_plugin_flags(argv: list[str]) -> tuple[list[str], dict[str, dict[str, Given]]]:
    """Take ``--plugin.NAME.KEY VALUE`` out of the arguments: the rest, and the values by plugin.

    They are taken out first because no parser knows them before plugins were asked.
    """
    rest: list[str] = []
    found: dict[str, dict[str, Given]] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif not word.startswith("--plugin."):
            rest.append(word)
        else:
            flag, has_value, value = word.partition("=")
            name, _, key = flag.removeprefix("--plugin.").partition(".")
            if not name or not key:
                raise SettingError(f"{flag} must look like --plugin.NAME.KEY VALUE")
            if not has_value:
                value = next(words, "--")
                if value.startswith("--"):
                    raise SettingError(f"{flag} needs a value (true or false for a switch)")
            found.setdefault(name, {})[key.replace("-", "_")] = Given(value, flag, text=True)
    return rest, found
