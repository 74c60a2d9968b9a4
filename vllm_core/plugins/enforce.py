"""Hold the policy against what is installed: unknown names, and what is required."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_core.plugins.errors import PluginError, PolicyError, nearest
from vllm_core.plugins.index import advice
from vllm_core.plugins.records import CORE

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.policy import Item

__all__ = ["names", "required"]


def names(catalog: Catalog) -> tuple[str, ...]:
    """Refuse names in allow, block and require that mean nothing. Returns warnings.

    Blocking what is not installed is only a warning, because nothing is on that should be off and
    one vllm.toml may serve several machines; but if the name is nearly that of something installed
    it is an error, because then the thing meant would stay on.
    """
    warnings = []
    policy = catalog.policy
    for key in ("allow", "require", "block"):
        for item in getattr(policy, key):
            known = _known(catalog, item)
            if _is_core(item):
                if key == "block":
                    raise PolicyError(
                        f'"{item.text}" in block in {item.source}: the core itself cannot be disabled.',
                        instead='single offerings of it can: block = ["kind:name"], e.g. '
                        + (next((f'"{o}"' for p in catalog.plugins if p.name == CORE for o in p.provides), "none now")),
                    )
                continue
            if item.text in known or _canonical_in(item, known):
                continue
            close = _closest(item, known)
            if key == "block" and not _is_typo(item.text, close):
                warnings.append(f'"{item.text}" in block in {item.source} is not installed: nothing to disable.')
                continue
            hint = f'; did you mean "{close}"?' if close else "."
            raise PolicyError(
                f'"{item.text}" in {key} in {item.source} is not installed{hint}',
                known=", ".join(sorted(known)) or "no plugin is installed",
                install=_advice(catalog, item),
            )
    return tuple(warnings)


def required(catalog: Catalog) -> None:
    """Fail if something required is not active."""
    for item in catalog.policy.require:
        if item.offering:
            kind, name = item.offering
            if name not in catalog.names(kind):
                raise _unmet(item, catalog.nobody(kind, name))
            continue
        for plugin in catalog.plugins:
            if item.names_plugin(plugin.name, plugin.distribution) and plugin.state != "active":
                raise PluginError(
                    f'plugin "{item.text}" is required (require in {item.source}) and is {plugin.state}.',
                    by=plugin.owner,
                    why=plugin.reason,
                    instead=plugin.remedy,
                )


def _unmet(item: Item, error: PluginError) -> PluginError:
    title = f'"{item.text}" is required (require in {item.source}), and {error.title}'
    return PluginError(title, **error.facts)


def _known(catalog: Catalog, item: Item) -> set[str]:
    if item.offering:
        return {str(offering) for plugin in catalog.plugins for offering in plugin.provides}
    return {name for p in catalog.plugins if p.name != CORE for name in (p.name, p.distribution)}


def _closest(item: Item, known: set[str]) -> str:
    """The nearest known item. Of offerings kind and name are compared apart: a long kind makes all names look alike."""
    if item.offering is None:
        return nearest(item.text, known)
    kind, name = item.offering
    kinds = {text.partition(":")[0] for text in known}
    kind = kind if kind in kinds else nearest(kind, kinds)
    found = nearest(name, [text.partition(":")[2] for text in known if text.startswith(f"{kind}:")])
    return f"{kind}:{found}" if found else ""


def _is_typo(text: str, close: str) -> bool:
    """Whether one was written for the other. Names that differ in a number (x2, x3) are two things."""
    from difflib import SequenceMatcher

    name, other = text.rpartition(":")[2].lower(), close.rpartition(":")[2].lower()
    digits = [[c for c in word if c.isdigit()] for word in (name, other)]
    return bool(other) and digits[0] == digits[1] and SequenceMatcher(None, name, other).ratio() > 0.8


def _canonical_in(item: Item, known: set[str]) -> bool:
    from vllm_core.plugins.discovery import canonical

    return ":".join(item.offering) in known if item.offering else canonical(item.text) in known


def _is_core(item: Item) -> bool:
    return item.names_plugin(CORE, "vllm-core")


def _advice(catalog: Catalog, item: Item) -> str:
    if item.offering is None:
        return ""
    kind, name = item.offering
    return advice(kind, name, {plugin.distribution for plugin in catalog.plugins})
