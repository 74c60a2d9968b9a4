"""``vllm-core plugins list`` and ``vllm-core plugins show NAME``. Must be fast: imports no plugin."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vllm_core.cli.engine_flags import add_policy_flags, policy_of

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.records import PluginStatus

__all__ = ["Plugins"]


class Plugins:
    """Installed plugins: which are used, which are not and why, and what each offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=("list", "show"), default="list", help="default: list")
        parser.add_argument("name", nargs="?", metavar="NAME", help="with show: a plugin or a distribution")
        parser.add_argument("--json", action="store_true", help="as JSON")
        add_policy_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        from vllm_core.plugins import load_catalog, read_policy

        catalog = load_catalog(read_policy(policy_of(args)), import_modules=False)
        for warning in catalog.warnings:
            print(warning, file=sys.stderr)
        if args.action == "show":
            plugins = _named(catalog, args.name)
        elif args.name is not None:
            raise ValueError(f"plugins list takes no name; vllm-core plugins show {args.name} does")
        else:
            plugins = list(catalog.plugins)
        if args.json:
            print(json.dumps([_record(catalog, plugin) for plugin in plugins], indent=2))
        elif args.action == "show":
            print("\n\n".join(_page(catalog, plugin) for plugin in plugins))
        else:
            print(_table(plugins))
        return 0


def _named(catalog: Catalog, name: str | None) -> list[PluginStatus]:
    from vllm_core.plugins.errors import PluginError, did_you_mean

    if not name:
        raise ValueError("plugins show needs the name of a plugin")
    found = [p for p in catalog.plugins if name in (p.name, p.distribution)]
    if not found:
        known = [p.name for p in catalog.plugins]
        hint = did_you_mean(name, [*known, *(p.distribution for p in catalog.plugins)])
        raise PluginError(f'no plugin "{name}" is installed{hint or "."}', known=", ".join(known))
    return found


def _state(plugin: PluginStatus) -> str:
    if plugin.state == "quarantined":
        return f"quarantined because {plugin.reason}"
    return plugin.reason or plugin.state  # "disabled by block in ./vllm.toml"


def _table(plugins: list[PluginStatus]) -> str:
    rows = [("PLUGIN", "VERSION", "DISTRIBUTION", "OFFERS", "STATE")]
    for plugin in plugins:
        offers = ", ".join(str(o) + (" (off)" if o.disabled else "") for o in plugin.provides) or "-"
        rows.append((plugin.name, plugin.version, plugin.distribution, _cut(offers, 60), _state(plugin)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row[:4], widths, strict=True)) + f"  {row[4]}"
        for row in rows
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _record(catalog: Catalog, plugin: PluginStatus) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "module": plugin.module,
        "state": plugin.state,
        "reason": plugin.reason,
        "remedy": plugin.remedy,
        "provides": [
            {"kind": o.kind, "name": o.name, "summary": o.summary, "disabled": o.disabled, "remedy": o.remedy}
            for o in plugin.provides
        ],
        "hooks": list(plugin.hooks),
        "settings": [
            {"name": s.name, "type": s.shown_type, "default": s.default, "unit": s.unit, "help": s.help}
            for s in _settings(catalog, plugin)
        ],
    }


def _page(catalog: Catalog, plugin: PluginStatus) -> str:
    lines = [f"{plugin.name} {plugin.version}  ({plugin.distribution}, module {plugin.module})", f"  {_state(plugin)}"]
    if plugin.remedy:
        lines.append(f"  remedy: {plugin.remedy}")
    for offering in plugin.provides:
        note = f"  [{offering.disabled}]" if offering.disabled else ""
        lines.append(f"  offers   {offering}  {offering.summary}{note}".rstrip())
    if plugin.hooks:
        lines.append(f"  hooks    {', '.join(plugin.hooks)}")
    for setting in _settings(catalog, plugin):
        from vllm_core.config.flags import flag_help

        lines.append(f"  setting  --plugin.{plugin.name}.{setting.flag[2:]}  {flag_help(setting)}")
    return "\n".join(lines)


def _settings(catalog: Catalog, plugin: PluginStatus) -> list[Any]:
    """Declarations of the plugin's own settings; its class is imported for them, only if it has one."""
    from vllm_core.config.declared import declared
    from vllm_core.plugin import load_target

    targets = [p.entry for p in catalog.entries("settings") if p.plugin == plugin.name]
    return [setting for target in targets for setting in declared(load_target(target)).values()]
