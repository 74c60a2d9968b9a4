"""Flags of commands that build an engine: its settings, and which plugins may be used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.config.flags import add_flags, given_flags
from vllm_core.config.load import Loaded, load

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog

__all__ = [
    "add_engine_flags",
    "add_policy_flags",
    "check_plugins",
    "engine_settings",
    "given_settings",
    "policy_of",
    "tell",
    "words_of",
]


def add_engine_flags(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """``optional``: whether the command also works without a model."""
    what = "folder, file, name of a bundled model, or id on the Hub"
    parser.add_argument("model", metavar="MODEL", nargs="?" if optional else None, help=what)
    parser.add_argument("--config", metavar="FILE", help="settings in TOML or YAML, instead of vllm.toml; flags win")
    add_policy_flags(parser)
    add_flags(parser, EngineSettings, skip=("model", "plugins", "plugin"))


def add_policy_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "which plugins",
        "A,B are plugins, distributions, or single offers as hook:name; each replaces vllm.toml's list.",
    )
    group.add_argument("--plugins-allow", metavar="A,B", help="use only these")
    group.add_argument("--plugins-block", metavar="A,B", help="do not use these")
    group.add_argument("--plugins-require", metavar="A,B", help="fail unless these are active")


def policy_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The policy flags, as keys of ``[plugins]``."""
    texts = {key: getattr(args, f"plugins_{key}") for key in ("allow", "block", "require")}
    return {
        key: [item.strip() for item in text.split(",") if item.strip()]
        for key, text in texts.items()
        if text is not None
    }


def words_of(args: argparse.Namespace) -> list[str]:
    """The words that say the same to another command with these flags: MODEL, settings, policy, plugins' settings."""
    words = [] if args.model is None else [args.model]
    words += [] if args.config is None else ["--config", args.config]
    for name, given in given_flags(args, EngineSettings).items():
        flag = given.source if given.text or given.value else f"--no-{name.replace('_', '-')}"
        words.append(f"{flag}={given.value}" if given.text else flag)
    for key in ("allow", "block", "require"):
        text = getattr(args, f"plugins_{key}")
        words += [] if text is None else [f"--plugins-{key}={text}"]
    for table in args.plugin_flags.values():
        words += [f"{given.source}={given.value}" for given in table.values()]
    return words


def engine_settings(args: argparse.Namespace) -> Loaded[EngineSettings]:
    """Settings from files, environment and flags, in ascending order."""
    return load(EngineSettings, file=args.config, overrides=given_settings(args))


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, as ``overrides`` of ``load``."""
    overrides: dict[str, Any] = given_flags(args, EngineSettings)
    if args.model is not None:
        overrides["model"] = Given(args.model, "MODEL")
    if policy := policy_of(args):
        overrides["plugins"] = Given(policy, "--plugins-...")
    if args.plugin_flags:
        overrides["plugin"] = Given(args.plugin_flags, "--plugin....")
    return overrides


def check_plugins(loaded: Loaded[EngineSettings]) -> Catalog:
    """Check plugins' settings before anything heavy is imported; name quarantined plugins on stderr."""
    from vllm_core.config.plugins import plugin_settings
    from vllm_core.plugins import load_catalog, read_policy

    catalog = load_catalog(read_policy(loaded.settings.plugins), import_modules=False)
    tell(catalog.notices)
    plugin_settings(catalog, loaded.settings.plugin)
    return catalog


def tell(notices: Iterable[str], known: Collection[str] = ()) -> None:
    """Print those that are not known yet, on standard error."""
    for notice in notices:
        if notice not in known:
            print(notice, file=sys.stderr)
