"""Which plugins and which single offerings may be used: allow, block, require, prefer.

Each key comes from the highest source that sets it: ``$XDG_CONFIG_HOME/vllm-core/vllm.toml``, then
``./vllm.toml``, then the environment, then flags. A source replaces the lower one's whole list, so
that an empty value lifts it. If allow and block both name something, it is blocked.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from vllm_core.plugins.discovery import canonical
from vllm_core.plugins.errors import PolicyError, did_you_mean
from vllm_core.plugins.records import kind_of

__all__ = ["Item", "Policy", "read_policy"]

_LISTS = ("allow", "block", "require")
_SECONDS = ("import_timeout_s", "answer_timeout_s")
_KEYS = (*_LISTS, "prefer", *_SECONDS)
_ENV = "VLLM_CORE_PLUGINS_"


@attrs.frozen
class Item:
    """One entry of a list: a plugin's name, a distribution, or one offering as ``kind:name``."""

    text: str
    source: str  # "./vllm.toml", "VLLM_CORE_PLUGINS_BLOCK", "--plugins-block"

    def names_plugin(self, name: str, distribution: str) -> bool:
        return ":" not in self.text and (self.text == name or canonical(self.text) == distribution)

    def names_offering(self, kind: str, name: str) -> bool:
        return self.offering == (kind, name)

    @property
    def disables(self) -> str:
        """``"disabled by block in ./vllm.toml"``, of an item that ``Policy`` returned as what disables."""
        return f"disabled by {self.source}"

    def remedy(self, name: str) -> str:
        """How to lift it for what is called ``name``."""
        return f'remove "{self.text}" there' if self.text else f'add "{name}" there'

    @property
    def offering(self) -> tuple[str, str] | None:
        """(kind, name), or None for plugins and distributions."""
        kind, colon, name = self.text.partition(":")
        return (kind_of(kind.replace("-", "_")), name) if colon else None


def _items(value: Iterable[str | Item] | None) -> tuple[Item, ...]:
    return tuple(item if isinstance(item, Item) else Item(item, "the Policy given") for item in value or ())


def _orders(value: Mapping[str, Iterable[str]]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({kind: tuple(names) for kind, names in value.items()})


@attrs.frozen(kw_only=True)
class Policy:
    """What the user allows.

    allow    if it names plugins, only those are used; if it names offerings, only those of their kind.
    block    these are not used. A blocked plugin is never imported.
    require  the start fails unless these are active.
    prefer   hook -> names (of offers, plugins or distributions), best first, among equal ranks.
    import_timeout, answer_timeout   what a plugin may take to be imported, and to answer one hook.
    """

    allow: tuple[Item, ...] = attrs.field(default=(), converter=_items)
    block: tuple[Item, ...] = attrs.field(default=(), converter=_items)
    require: tuple[Item, ...] = attrs.field(default=(), converter=_items)
    prefer: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict, converter=_orders)
    import_timeout: float = attrs.field(default=2.0, converter=float, validator=attrs.validators.gt(0))  # seconds
    answer_timeout: float = attrs.field(default=20.0, converter=float, validator=attrs.validators.gt(0))  # seconds

    def plugin_disabled(self, name: str, distribution: str) -> Item | None:
        """The item that turns this plugin off; without a text if it is what allow leaves out."""
        return self._disabled(lambda item: item.names_plugin(name, distribution), lambda item: item.offering is None)

    def offering_disabled(self, kind: str, name: str) -> Item | None:
        """The same for one offering of a plugin."""
        return self._disabled(
            lambda item: item.names_offering(kind, name), lambda item: bool(item.offering and item.offering[0] == kind)
        )

    def _disabled(self, names: Callable[[Item], bool], limits: Callable[[Item], bool]) -> Item | None:
        for item in self.block:
            if names(item):
                return attrs.evolve(item, source=f"block in {item.source}")
        limiting = [item for item in self.allow if limits(item)]
        if limiting and not any(names(item) for item in limiting):
            return Item("", f"allow in {limiting[0].source}")
        return None


def read_policy(
    flags: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Policy:
    """The policy from ``vllm.toml``, the environment and ``flags`` (keys as in ``[plugins]``; None is unset).

    ``flags["file"]``, {"name": ..., "table": ...}, is what a file given by name has in ``[plugins]``: it stands in
    place of every ``vllm.toml``.
    """
    environ = os.environ if environ is None else environ
    config_home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    values: dict[str, tuple[Any, str]] = {}  # key -> (value, source)
    xdg = config_home / "vllm-core" / "vllm.toml"
    flags = dict(flags or {})
    if isinstance(given := flags.get("file"), Mapping) and given.keys() == {"name", "table"}:
        values.update({key: _checked(key, value, given["name"]) for key, value in flags.pop("file")["table"].items()})
    else:
        values.update(_from_file(xdg, str(xdg)))
        values.update(_from_file((folder or Path()) / "vllm.toml", "./vllm.toml"))
    values.update(_from_environment(environ))
    for key, value in flags.items():
        if value is not None:
            flag = "--prefer" if key == "prefer" else f"--plugins-{key.replace('_', '-')}"
            values[key] = _checked(key, value, flag)

    arguments: dict[str, Any] = {
        key: [Item(text, values[key][1]) for text in values[key][0]] for key in _LISTS if key in values
    }
    if "prefer" in values:
        arguments["prefer"] = values["prefer"][0]
    arguments |= {key.removesuffix("_s"): values[key][0] for key in _SECONDS if key in values}
    return Policy(**arguments)


def _from_file(path: Path, shown: str) -> dict[str, tuple[Any, str]]:
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        table = tomllib.loads(text).get("plugins", {})
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{shown} is not valid TOML: {error}.") from None
    if not isinstance(table, dict):
        raise PolicyError(f"plugins in {shown} must be a table: [plugins].")
    return {key: _checked(key, value, shown) for key, value in table.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    known = {f"{_ENV}{key.upper()}": key for key in _LISTS}
    values = {}
    for variable, value in environ.items():
        if variable in known:
            values[known[variable]] = ([item for x in value.split(",") if (item := x.strip())], variable)
        elif variable.startswith(_ENV):
            raise PolicyError(
                f"environment variable {variable} is not known{did_you_mean(variable, known) or '.'}",
                known=", ".join(known),
            )
    return values


def _checked(key: str, value: Any, source: str) -> tuple[Any, str]:
    if key not in _KEYS:
        raise PolicyError(
            f'key "{key}" of [plugins] in {source} is not known{did_you_mean(key, _KEYS) or "."}',
            known=", ".join(_KEYS),
        )
    if key in _LISTS and not _is_names(value):
        raise PolicyError(
            f'{key} in {source} must be a list of names such as ["x", "attention_backend:y"], not {value!r}.'
        )
    if key == "prefer" and not (isinstance(value, Mapping) and all(map(_is_names, value.values()))):
        raise PolicyError(
            f"prefer in {source} must map hooks to lists of names, "
            f'such as prefer.attention_backend = ["x"], not {value!r}.'
        )
    if key in _SECONDS and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
        raise PolicyError(f"{key} in {source} must be a number of seconds above 0, not {value!r}.")
    return value, source


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(x, str) and x.strip() == x and x for x in value)
