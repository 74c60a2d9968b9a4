"""``vllm-core explain MODEL``"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings

if TYPE_CHECKING:
    from vllm_core.config.engine import EngineSettings
    from vllm_core.config.load import Loaded

__all__ = ["Explain"]


class Explain:
    """Make every choice for a model without reading a weight, and print who won and why."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        add_engine_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        loaded = engine_settings(args)
        catalog = check_plugins(loaded)
        from vllm_core.engine.resolve import resolve
        from vllm_core.plugins.explain import explain, format_explain

        resolved = resolve(loaded.settings)
        given = _sources(loaded)
        quarantined = {p.name: p.reason for p in catalog.plugins if p.state == "quarantined"}
        if args.json:
            report: dict[str, Any] = {
                "model": args.model,
                "settings": {name: {"value": value, "source": source} for name, (value, source) in given.items()},
                **explain(resolved.selector.decisions),
                "quarantined": quarantined,
                "digest": resolved.lock.digest,
            }
            print(json.dumps(report, indent=2, default=str))
            return 0
        width = max(map(len, given))
        print("settings")
        for name, (value, source) in given.items():
            print(f"  {name:<{width}}  {value}  ({source})")
        print(f"\n{format_explain(resolved.selector.decisions)}")
        return 0


def _sources(loaded: Loaded[EngineSettings]) -> dict[str, tuple[Any, str]]:
    """Every setting that somebody gave: value and source. Plugins' own as plugin.NAME.KEY."""
    given = {name: (value, loaded.sources[name]) for name, value in loaded.given.items() if name != "plugin"}
    for plugin, table in loaded.settings.plugin.items():
        for key, value in table.items():
            given[f"plugin.{plugin}.{key}"] = (value.value, value.source)
    return given
