"""The names of a new plugin, all made from one, and why one cannot be taken."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

import attrs
from packaging.utils import canonicalize_name

from vllm_core.plugins.errors import PluginError

if TYPE_CHECKING:
    from vllm_core.cli.template.kinds import Kind
    from vllm_core.plugins.catalog import Catalog

__all__ = ["Names", "refuse_taken"]

PREFIX = "vllm-plugin-"
_PEP_508 = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
LONGEST = 50  # characters; folders and modules repeat it


@attrs.frozen
class Names:
    """``name`` is the plugin's, as in "owl"; everything else follows from it."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Names:
        """From what the user wrote; the prefix of distributions may be there already."""
        name = canonicalize_name(text).removeprefix(PREFIX)
        if not _PEP_508.fullmatch(text) or not name or len(name) > LONGEST:
            raise PluginError(
                f'"{text}" cannot be the name of a package.',
                why=f"letters, digits, '-', '_' and '.', a letter or a digit at both ends, {LONGEST} at most (PEP 508)",
                instead=_close_to(name),
            )
        names = cls(name)
        if not names.class_name.isidentifier() or keyword.iskeyword(names.class_name):
            raise PluginError(
                f'"{text}" cannot name a class: {names.class_name} is no name in Python.', instead=f"my-{name}"
            )
        return names

    @property
    def distribution(self) -> str:
        return f"{PREFIX}{self.name}"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        return "".join(part[:1].upper() + part[1:] for part in self.name.split("-"))


def refuse_taken(names: Names, kind: Kind, catalog: Catalog) -> None:
    """`PluginError` if the core, an installed plugin or a published one of the project's has a name already."""
    from vllm_core.plugins.index import known_distributions, lookup
    from vllm_core.plugins.records import kind_of

    offered = kind_of(kind.hook)
    why = ""
    for plugin in catalog.plugins:
        if names.name == plugin.name or names.distribution == canonicalize_name(plugin.distribution):
            why = f"{plugin.distribution} {plugin.version}, which is installed, has it"
    if not why and find_spec(names.module) is not None:
        why = f"a module {names.module} can be imported already"
    if not why and names.name in catalog.names(offered):
        offers = next(p for p in catalog.active for o in p.provides if (o.kind, o.name) == (offered, names.name))
        why = f"{offers.distribution} {offers.version} offers the {kind.name} {names.name}"
    if not why and (owners := lookup(offered, names.name)):
        why = f"{owners[0]} offers the {kind.name} {names.name}"
    if not why and names.distribution in known_distributions():
        why = f"{names.distribution} is a published package"
    if why:
        raise PluginError(f'the name "{names.name}" is taken.', why=why, instead=f"my-{names.name}")


def _close_to(name: str) -> str:
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST].strip("-")
    return made or "my-plugin"
