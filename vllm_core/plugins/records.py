"""What the plugin system knows about a plugin, as plain records."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from vllm_core.hookspecs import ASKED
from vllm_core.plugin import BundledModel, Command, Endpoint, ModelEntry, Provides
from vllm_core.plugins.lines import printable

__all__ = ["CORE", "LISTINGS", "Found", "Offering", "PluginStatus", "Probed", "Provided", "key_of", "kind_of"]

CORE = "core"
"""The name under which the core's own reference implementations are listed."""

LISTINGS: dict[str, type] = {
    "models": ModelEntry,
    "provides": Provides,
    "bundled_models": BundledModel,
    "cli_commands": Command,
    "http_endpoints": Endpoint,
}
"""Hooks without arguments that list records, and the record."""

_KINDS = {"models": "model", "bundled_models": "bundled_model", "cli_commands": "command", "http_endpoints": "endpoint"}


def kind_of(hook: str) -> str:
    """What stands before the colon in ``kind:name`` for offerings of this hook; most hooks stand for themselves."""
    return _KINDS.get(hook, hook)


def key_of(hook: str, entry: Any) -> tuple[str, str]:
    """(kind, name) of a listed record."""
    if hook == "provides":
        return kind_of(entry.kind), entry.name
    names = {"models": "architecture", "http_endpoints": "path"}
    return kind_of(hook), getattr(entry, names.get(hook, "name"))


def lines_of(hook: str, entry: Any) -> list[str]:
    """What no other record of the same plugin may be as well: its key, or of an endpoint each method of its path."""
    kind, name = key_of(hook, entry)
    return [f"{kind}:{method} {name}" for method in entry.methods] if hook == "http_endpoints" else [f"{kind}:{name}"]


def plain_value(instance: Any, attribute: Any, value: Any) -> Any:
    """For ``attrs.asdict``: JSON has no sets."""
    return sorted(value) if isinstance(value, frozenset | set) else value


@attrs.frozen(kw_only=True)
class Found:
    """An entry point, before anything of the plugin was imported."""

    name: str
    module: str
    distribution: str
    version: str
    requires: tuple[str, ...] = ()  # Requires-Dist lines
    stamp: int = 0  # mtime_ns of the distribution's metadata: a reinstall changes it
    file: str = ""  # the module's file; "" if there is none

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}, entry point {self.name} = {self.module}"


@attrs.frozen(kw_only=True)
class Probed:
    """What importing the plugin once, in a child process, showed."""

    hooks: tuple[str, ...] = ()  # implemented
    listings: dict[str, list[Any]] = attrs.field(factory=dict)  # hook -> records of LISTINGS
    deprecated: tuple[str, ...] = ()  # what it implements that goes, and what to do instead
    reason: str = attrs.field(default="", converter=printable)  # why it is quarantined; "" if it is fine
    remedy: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return attrs.asdict(self, value_serializer=plain_value)

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Probed:
        """The inverse of ``plain``; ``TypeError``, ``ValueError`` or ``KeyError`` if it is not that."""
        return cls(
            hooks=tuple(data.get("hooks", ())),
            listings={
                hook: [LISTINGS[hook](**entry) for entry in entries] if hook in LISTINGS else entries
                for hook, entries in data.get("listings", {}).items()
            },
            deprecated=tuple(data.get("deprecated", ())),
            reason=data.get("reason", ""),
            remedy=data.get("remedy", ""),
        )


@attrs.frozen
class Offering:
    """One thing a plugin offers, as policies name it."""

    kind: str
    name: str
    summary: str = ""
    disabled: str = ""  # "" or "disabled by block in ./vllm.toml"
    remedy: str = ""  # of a disabled one

    @property
    def asked(self) -> bool:
        """Whether this version asks the hook that it is offered through; if not, it stays unused."""
        return any(kind_of(hook) == self.kind for hook in ASKED)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@attrs.frozen(kw_only=True)
class PluginStatus:
    """One row of ``vllm-core plugins list``."""

    name: str
    distribution: str
    version: str
    module: str
    state: Literal["active", "disabled", "quarantined"]
    reason: str = ""  # "disabled by block in ./vllm.toml"; for quarantined ones what is wrong
    remedy: str = ""
    provides: tuple[Offering, ...] = ()
    hooks: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()  # of them or their arguments: which go when, and what to do instead
    file: str = ""

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}, entry point {self.name} = {self.module}"

    @property
    def label(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@attrs.frozen
class Provided:
    """A record or an offer together with whose it is."""

    entry: Any  # ModelEntry, Provides, Command, ..., or the Offer that won
    plugin: str
    distribution: str
    version: str

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}"
