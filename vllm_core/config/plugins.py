"""Plugins' own settings: [plugin.NAME] and ``--plugin.NAME.KEY``, held against what each plugin declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_core.config.convert import Given, convert
from vllm_core.config.declared import declared
from vllm_core.config.errors import SettingError, did_you_mean

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog

__all__ = ["instance", "plugin_settings"]


def plugin_settings(catalog: Catalog, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An instance of its settings class for each active plugin that has one.

    values   {plugin: {key: value}}, as in ``EngineSettings.plugin``; a value may be a ``Given``,
             whose source then stands in the message. Values for a plugin that is disabled or
             quarantined wait for it; those for one that is not installed are an error.
    """
    from vllm_core.plugin import load_target

    classes = {listed.plugin: load_target(listed.entry) for listed in catalog.entries("settings")}
    installed = {plugin.name: plugin for plugin in catalog.plugins}
    for name, table in values.items():
        if name in classes:
            continue
        where = _where(name, table)
        if name not in installed:
            hint = did_you_mean(name, classes) or did_you_mean(name, installed)
            known = ", ".join(sorted(classes)) or "none"
            raise SettingError(
                f'no plugin "{name}" is installed{hint}\n  where   {where}\n  known   {known} have settings'
            )
        plugin = installed[name]
        if plugin.state == "active" and table:
            raise SettingError(f'plugin "{name}" has no settings\n  by      {plugin.owner}\n  where   {where}')
    return {name: instance(name, cls, values.get(name, {})) for name, cls in classes.items()}


def instance(name: str, cls: type, table: Mapping[str, Any]) -> Any:
    """The settings of one plugin from a table of values, each of which may be a ``Given``."""
    known = declared(cls)
    found = {}
    for key, value in table.items():
        given = value if isinstance(value, Given) else Given(value, f'argument plugin["{name}"]["{key}"]')
        if key not in known:
            hint = did_you_mean(key, known) or f"; it has {', '.join(known)}"
            raise SettingError(f'"{key}" is not a setting of plugin "{name}"{hint}\n  where   {given.source}')
        try:
            found[key] = convert(known[key], given)
        except SettingError as error:
            raise SettingError(f'plugin "{name}": {error}') from None
    try:
        return cls(**found)
    except ValueError as error:  # about two of them together
        raise SettingError(f'plugin "{name}": {error}') from None


def _where(name: str, table: Mapping[str, Any]) -> str:
    sources = {v.source for v in table.values() if isinstance(v, Given)}
    return ", ".join(sorted(sources)) or f'argument plugin["{name}"]'
