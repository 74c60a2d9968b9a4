"""``vllm-core explain MODEL``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings, tell
from vllm_core.plugins.lines import columns, labelled

if TYPE_CHECKING:
    from vllm_core.config.engine import EngineSettings
    from vllm_core.config.load import Loaded
    from vllm_core.plugins.catalog import Catalog

__all__ = ["Explain"]


class Explain:
    """Make every choice for a model without reading a weight, and print who won and why."""

    about = (
        "Makes every choice that a start with these flags would make, and prints who offered, who refused and why, who "
        "won, and from which package and version. No weight is read."
    )
    examples = (
        ("explain ./my-model", ""),
        ("explain ./my-model --attention-backend reference", "the same flags as chat and complete"),
        ("explain ./my-model --json", "for programs"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        add_engine_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        loaded = engine_settings(args)
        catalog = check_plugins(loaded)
        from vllm_core.engine.choose_text import choose_text
        from vllm_core.engine.parsers import Parsers
        from vllm_core.engine.resolve import resolve
        from vllm_core.plugins.explain import explain, format_explain

        resolved = resolve(loaded.settings)
        tell(resolved.warnings, known=catalog.notices)
        problem = ""
        if resolved.checkpoint.tokenizer or loaded.settings.tokenizer:
            config = resolved.build.model.config
            tokenizer, _ = choose_text(resolved.selector, loaded.settings, resolved.checkpoint, config)
            if tokenizer is not None:
                Parsers(resolved.selector, loaded.settings, tokenizer, config.get("architectures") or ()).choose()
        elif not loaded.settings.skip_tokenizer_init:
            problem = "the checkpoint has no tokenizer; --tokenizer names one, --skip-tokenizer-init goes without"
        decisions = resolved.selector.decisions
        given = _sources(loaded)
        if args.json:
            report: dict[str, Any] = {
                "model": args.model,
                "settings": {name: {"value": value, "source": source} for name, (value, source) in given.items()},
                **explain(decisions),
                "disabled": {p.name: p.reason for p in catalog.plugins if p.state == "disabled"},
                "quarantined": {p.name: p.reason for p in catalog.plugins if p.state == "quarantined"},
                "problem": problem,
                "digest": resolved.lock.digest,
            }
            print(json.dumps(report, indent=2, default=str))
            return 0
        width = max(map(len, given))
        rows = "".join(f"\n  {name:<{width}}  {value}  ({source})" for name, (value, source) in given.items())
        print(f"settings{rows}\n\n{format_explain(decisions, columns())}{_absent(catalog)}")
        if problem:
            print(f"\nproblem: {problem}")
        return 0


def _absent(catalog: Catalog) -> str:
    """The plugins that were not asked at all."""
    lines = []
    for plugin in catalog.plugins:
        if plugin.state != "active":
            state = "quarantined: " if plugin.state == "quarantined" else ""
            lines += labelled(plugin.name, f"({plugin.owner}) {state}{plugin.reason}; {plugin.remedy}", columns())
    return "\n".join(["\n\ninstalled, and not asked", *lines]) if lines else ""


def _sources(loaded: Loaded[EngineSettings]) -> dict[str, tuple[Any, str]]:
    """Every setting that somebody gave: value and source. Tables by key: plugins.block, plugin.NAME.KEY."""
    given = {name: (value, loaded.sources[name]) for name, value in loaded.given.items()}
    given.pop("plugin", None)
    policy = dict(given.pop("plugins", ({}, ""))[0])
    file = policy.pop("file", {"name": "", "table": {}})
    told = {key: (value, f"[plugins] of {file['name']}") for key, value in file["table"].items()}
    told |= {key: (value, f"--plugins-{key}") for key, value in policy.items()}
    for key, (value, source) in told.items():
        shown = value if isinstance(value, Mapping | str) else ", ".join(value) if isinstance(value, list) else value
        given[f"plugins.{key}"] = (shown, source)
    for plugin, table in loaded.settings.plugin.items():
        for key, value in table.items():
            given[f"plugin.{plugin}.{key}"] = (value.value, value.source)
    return given
