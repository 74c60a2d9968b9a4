"""All installed plugins with their states, and what the active ones offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from vllm_core.plugins import cache, enforce
from vllm_core.plugins.checks import check, collisions
from vllm_core.plugins.discovery import discover
from vllm_core.plugins.errors import Ambiguous, NoOffer, did_you_mean
from vllm_core.plugins.index import advice
from vllm_core.plugins.lines import one_line
from vllm_core.plugins.policy import Policy, read_policy
from vllm_core.plugins.probing import probe_all
from vllm_core.plugins.records import CORE, Found, Offering, PluginStatus, Probed, Provided, key_of, kind_of

__all__ = ["Catalog", "load_catalog"]


class Catalog:
    """What is installed. ``plugins`` has a row for each plugin, broken and disabled ones included."""

    def __init__(
        self, plugins: Iterable[PluginStatus], listings: Mapping[str, Mapping[str, list[Any]]], policy: Policy
    ) -> None:
        self.plugins = tuple(plugins)
        self.policy = policy
        self.warnings: tuple[str, ...] = ()
        self.settings: dict[str, Any] = {}  # plugin -> instance of its settings (config.plugins.plugin_settings)
        self._listings = listings  # plugin -> hook -> records
        self._hooks: Any = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What a start says on one line each: plugins that are quarantined or implement what goes, then warnings."""
        quarantined = (p for p in self.plugins if p.state == "quarantined")
        deprecated = (f"plugin {p.label}: {said}" for p in self.active for said in p.deprecated)
        said = (f"plugin {p.label} is quarantined: {one_line(p.reason)}" for p in quarantined)
        return (*said, *deprecated, *self.warnings)

    @property
    def active(self) -> tuple[PluginStatus, ...]:
        return tuple(p for p in self.plugins if p.state == "active")

    def models(self) -> dict[str, list[Provided]]:
        """Architecture -> the entries of those who serve it; more than one matters only when it is asked for."""
        found: dict[str, list[Provided]] = {}
        for provided in self.entries("models"):
            found.setdefault(provided.entry.architecture, []).append(provided)
        return found

    def entries(self, hook: str) -> list[Provided]:
        """The records that active plugins list through a hook without arguments, less those disabled."""
        return [
            Provided(entry, plugin.name, plugin.distribution, plugin.version)
            for plugin in self.active
            for entry in self._listings.get(plugin.name, {}).get(hook, ())
            if hook == "settings" or not self.policy.offering_disabled(*key_of(hook, entry))
        ]

    def find(self, hook: str, name: str) -> Provided:
        """The one record of that name. Two plugins with the same one: ``prefer`` decides, or an error does."""
        kind = kind_of(hook)
        found = [p for p in self.entries(hook) if key_of(hook, p.entry)[1] == name]
        if not found:
            raise self.nobody(kind, name)
        if len(found) == 1:
            return found[0]
        for wanted in self.prefer(hook):
            for provided in found:
                if wanted in (provided.plugin, provided.distribution):
                    return provided
        raise Ambiguous(
            f'{kind} "{name}" is offered by {" and by ".join(p.owner for p in found)}.',
            settle=[f'[plugins] prefer.{hook} = ["{p.distribution}"] in vllm.toml takes {p.owner}' for p in found],
        )

    def prefer(self, hook: str) -> tuple[str, ...]:
        """The policy's order for a hook, under its own name or that of its kind."""
        return self.policy.prefer.get(hook) or self.policy.prefer.get(kind_of(hook), ())

    def names(self, kind: str) -> list[str]:
        """The names of a kind that active plugins offer and nothing disables."""
        return sorted({o.name for p in self.active for o in p.provides if o.kind == kind and not o.disabled})

    def nobody(self, kind: str, name: str) -> NoOffer:
        """The error for a name that no active plugin offers: who would, or what to install."""
        word = kind.replace("_", " ")
        why = []
        for plugin in self.plugins:
            for offering in plugin.provides:
                if (offering.kind, offering.name) == (kind, name):
                    if offering.disabled:
                        why.append(f"{plugin.label} offers it, {offering.disabled}; {offering.remedy}")
                    elif plugin.state != "active":
                        state = "quarantined: " if plugin.state == "quarantined" else ""
                        why.append(f"{plugin.label} offers it, {state}{plugin.reason}; {plugin.remedy}")
        known = self.names(kind)
        # A blocked plugin is not imported to ask it, so what it offers is known only from an earlier start.
        unasked = [p for p in self.plugins if p.state == "disabled" and not p.provides]
        return NoOffer(
            f'no active plugin offers the {word} "{name}"{(not why and did_you_mean(name, known)) or "."}',
            why=why,
            known=", ".join(known) or f"no {word} at all",
            unasked=[f"{p.label}: {p.reason}; {p.remedy}" for p in unasked] if not why else (),
            broken=[
                f"{p.name} ({p.distribution} {p.version}): {p.reason}" for p in self.plugins if p.state == "quarantined"
            ],
            install=advice(kind, name, {p.distribution for p in self.plugins}),
        )

    def implementations(self, hook: str) -> list[tuple[PluginStatus, Callable[..., Any]]]:
        """Each active plugin's function for a hook; called with ``query=...`` it gets the arguments it declares."""
        if self._hooks is None:
            raise RuntimeError("this catalog was loaded with import_modules=False: it lists plugins and asks none")
        return self._hooks.implementations(hook)

    def import_modules(self) -> None:
        """Import the active plugins in this process; those that fail are quarantined."""
        from vllm_core.plugins.hooks import Hooks

        self._hooks = Hooks()
        rows = []
        for plugin in self.plugins:
            failed = self._hooks.register(plugin) if plugin.state == "active" else ""
            if failed:
                remedy = f"python -c 'import {plugin.module}' shows where"
                plugin = attrs.evolve(plugin, state="quarantined", reason=failed, remedy=remedy)
            rows.append(plugin)
        self.plugins = tuple(rows)


def load_catalog(policy: Policy | None = None, *, reprobe: bool = False, import_modules: bool = True) -> Catalog:
    """Find, check and probe all plugins.

    policy          None reads vllm.toml and the environment.
    reprobe         import in the child again even what is cached.
    import_modules  False for listings: no plugin is imported in this process.
    """
    policy = read_policy() if policy is None else policy
    found = discover()
    statuses: dict[Found, PluginStatus] = {}
    for plugin in found:
        item = None if plugin.name == CORE else policy.plugin_disabled(plugin.name, plugin.distribution)
        if item:
            statuses[plugin] = _status(plugin, "disabled", item.disables, item.remedy(plugin.name))
    left = [plugin for plugin in found if plugin not in statuses]
    problems = collisions(p for p in left if p.name != CORE)  # who takes the core's names fails the checks
    for plugin in left:
        problem = check(plugin) or problems.get(plugin)
        if problem:
            statuses[plugin] = _status(plugin, "quarantined", *problem)

    # A disabled plugin is not imported; what it offers is shown if an earlier start has seen it.
    probed = cache.load([p for p in statuses if p.file])
    probed.update(probe_all([p for p in found if p not in statuses], policy.import_timeout, reprobe=reprobe))
    for plugin in found:
        result = probed.get(plugin, Probed())
        state = "quarantined" if result.reason else "active"
        status = statuses.get(plugin) or _status(plugin, state, result.reason, result.remedy)
        provides = _offerings(result, policy)
        statuses[plugin] = attrs.evolve(status, provides=provides, hooks=result.hooks, deprecated=result.deprecated)

    listings = {p.name: probed[p].listings for p in found if statuses[p].state == "active"}
    catalog = Catalog((statuses[plugin] for plugin in found), listings, policy)
    catalog.warnings = enforce.names(catalog)
    if import_modules:
        catalog.import_modules()
    enforce.required(catalog)
    return catalog


def _status(plugin: Found, state: Any, reason: str, remedy: str) -> PluginStatus:
    return PluginStatus(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        module=plugin.module,
        state=state,
        reason=reason,
        remedy=remedy,
        file=plugin.file,
    )


def _offerings(probed: Probed, policy: Policy) -> tuple[Offering, ...]:
    found = []
    for hook, entries in probed.listings.items():
        for entry in entries if hook != "settings" else ():
            found.append(offering(policy, *key_of(hook, entry), getattr(entry, "summary", "")))
    return tuple(found)


def offering(policy: Policy, kind: str, name: str, summary: str = "") -> Offering:
    """One offering, with what the policy says to it."""
    item = policy.offering_disabled(kind, name)
    off = (item.disables, item.remedy(f"{kind}:{name}")) if item else ("", "")
    return Offering(kind, name, summary, *off)
