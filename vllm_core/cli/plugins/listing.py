"""``vllm-core plugins list`` and ``vllm-core plugins show NAME``. Must be fast: imports no plugin."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vllm_core.cli.engine_flags import add_policy_flags, policy_of
from vllm_core.cli.errors import UsageError
from vllm_core.cli.plugin_pages import page, table
from vllm_core.plugins.lines import columns

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.records import PluginStatus

__all__ = ["List", "Show"]


class _Listing:
    """What both commands share: their flags, and how a table, a page or JSON is printed."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        parser.add_argument(
            "--reprobe",
            action="store_true",
            help="import every plugin again, in a child process, instead of what is known",
        )
        parser.add_argument("--config", metavar="FILE", help="[plugins] of this file, instead of vllm.toml's")
        add_policy_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        from vllm_core.plugins import load_catalog, read_policy

        policy = policy_of(args)
        if args.config is not None:
            from vllm_core.config.files import read_files

            policy = {**read_files(args.config)[0].policy, **policy}
        catalog = load_catalog(read_policy(policy), reprobe=args.reprobe, import_modules=False)
        for warning in catalog.warnings:
            print(warning, file=sys.stderr)
        plugins = self.chosen(catalog, args.name)
        if args.json:
            print(json.dumps([_record(catalog, plugin) for plugin in plugins], indent=2))
        else:
            self.tell(catalog, plugins)
        return 0

    def chosen(self, catalog: Catalog, name: str | None) -> list[PluginStatus]:
        raise NotImplementedError

    def tell(self, catalog: Catalog, plugins: list[PluginStatus]) -> None:
        raise NotImplementedError


class List(_Listing):
    """Installed plugins: which are used, which are not and why, and what each offers."""

    about = (
        "Lists the installed plugins: which are used, which are not and why, and what each offers. Nothing is "
        "imported but plugins that are new here, once, in a process of their own."
    )
    examples = (
        ("plugins", "the list"),
        ("plugins list --plugins-block cpu-attention", "what a flag of another command would do"),
        ("plugins list --json", "for programs"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)  # refused below, with what takes one
        super().add_arguments(parser)

    def chosen(self, catalog: Catalog, name: str | None) -> list[PluginStatus]:
        if name is not None:
            raise UsageError(f"plugins list takes no name; vllm-core plugins show {name} does")
        return list(catalog.plugins)

    def tell(self, catalog: Catalog, plugins: list[PluginStatus]) -> None:
        print(table(plugins, columns()))


class Show(_Listing):
    """All about one plugin: what it offers, its state and the reason, its settings."""

    about = "Tells all about one plugin: what it offers, whether it is used and why not, and its settings."
    examples = (("plugins show cpu-attention", "one, with its settings"),)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME", help="a plugin or a distribution")
        super().add_arguments(parser)

    def chosen(self, catalog: Catalog, name: str | None) -> list[PluginStatus]:
        return _named(catalog, name)

    def tell(self, catalog: Catalog, plugins: list[PluginStatus]) -> None:
        print("\n\n".join(page(plugin, _settings(catalog, plugin)) for plugin in plugins))


def _named(catalog: Catalog, name: str | None) -> list[PluginStatus]:
    from vllm_core.plugins.errors import PluginError, did_you_mean

    if not name:
        raise UsageError("plugins show needs the name of a plugin; vllm-core plugins list has them")
    found = [p for p in catalog.plugins if name in (p.name, p.distribution)]
    if not found:
        known = [p.name for p in catalog.plugins]
        hint = did_you_mean(name, [*known, *(p.distribution for p in catalog.plugins)])
        raise PluginError(f'no plugin "{name}" is installed{hint or "."}', known=", ".join(known))
    return found


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
            {
                "kind": o.kind,
                "name": o.name,
                "summary": o.summary,
                "disabled": o.disabled,
                "remedy": o.remedy,
                "asked": o.asked,
            }
            for o in plugin.provides
        ],
        "hooks": list(plugin.hooks),
        "deprecated": list(plugin.deprecated),
        "settings": [
            {"name": s.name, "type": s.shown_type, "default": s.default, "unit": s.unit, "help": s.help}
            for s in _settings(catalog, plugin)
        ],
    }


def _settings(catalog: Catalog, plugin: PluginStatus) -> list[Any]:
    """Declarations of the plugin's own settings; its class is imported for them, only if it has one."""
    from vllm_core.config.declared import declared
    from vllm_core.plugin import load_target

    targets = [p.entry for p in catalog.entries("settings") if p.plugin == plugin.name]
    return [setting for target in targets for setting in declared(load_target(target)).values()]
