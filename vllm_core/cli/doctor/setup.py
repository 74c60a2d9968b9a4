"""Plugins, configuration files, environment variables and the Hub's cache. Asks no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.config.files import read_files
from vllm_core.config.load import Loaded, load
from vllm_core.plugins.lines import one_line

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog

__all__ = ["Settings", "hub", "plugins", "preferences"]

OTHERS = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
          "HF_ENDPOINT", "HF_TOKEN")  # fmt: skip
"""Read by what we build on."""
SECRET = "HF_TOKEN"


class Settings:
    """Reads all settings; ``loaded`` is None if that fails."""

    def __init__(self, file: str | None, overrides: dict[str, Any]) -> None:
        self._file, self._overrides = file, overrides
        self.loaded: Loaded[EngineSettings] | None = None

    def findings(self) -> Iterator[Finding]:
        files = read_files(self._file)
        for read in files:
            keys = [f"{table}.{key}" for table, content in read.tables.items() for key in content]
            yield Finding("settings", read.shown, "ok", f"sets {', '.join(keys) or 'nothing'}", facts={"keys": keys})
        if not files:
            yield Finding("settings", "files", "ok", "no vllm.toml here or in the user's configuration folder")
        yield from _variables()
        self.loaded = load(EngineSettings, file=self._file, overrides=self._overrides)
        given = [name for name, source in self.loaded.sources.items() if source != "default" and name != "model"]
        says = f"{', '.join(given)} differ from their defaults" if given else "all as they are by default"
        yield Finding("settings", "values", "ok", says, facts={"given": {n: self.loaded.sources[n] for n in given}})


def _variables() -> Iterator[Finding]:
    ours = sorted(name for name in os.environ if name.startswith("VLLM_CORE_") or name in OTHERS)
    shown = [f"{name}={'(set)' if name == SECRET else os.environ[name]}" for name in ours]
    yield Finding(
        "settings", "environment", "ok", ", ".join(shown) or "no variable that is read here", facts={"names": ours}
    )
    others = sorted(name for name in os.environ if name.startswith("VLLM_") and not name.startswith("VLLM_CORE_"))
    if others:
        yield Finding(
            "settings", "environment", "warn", f"{', '.join(others)}: vLLM's variables are not read here",
            remedy="settings are flags, keys of vllm.toml, or VLLM_CORE_* variables (docs/settings.md)",
        )  # fmt: skip


def plugins(catalog: Catalog, given: dict[str, dict[str, Given]]) -> Iterator[Finding]:
    """``given``: plugins' own settings."""
    from vllm_core.config.plugins import plugin_settings

    for plugin in catalog.plugins:
        offers = [str(offering) for offering in plugin.provides if not offering.disabled]
        off = [f"{o} ({o.disabled}; {o.remedy})" for o in plugin.provides if o.disabled]
        facts = {
            "state": plugin.state, "distribution": plugin.distribution, "version": plugin.version,
            "reason": plugin.reason, "offers": offers, "off": off,
        }  # fmt: skip
        name, whose = plugin.name, f"{plugin.distribution} {plugin.version}"
        if plugin.state == "quarantined":
            says = f"{whose}, quarantined: {one_line(plugin.reason)}"
            yield Finding("plugins", name, "warn", says, remedy=plugin.remedy, facts=facts)
        elif plugin.state == "disabled":
            yield Finding("plugins", name, "ok", f"{whose}, {plugin.reason}; {plugin.remedy}", facts=facts)
        else:
            without = f"; without {', '.join(off)}" if off else ""
            yield Finding("plugins", name, "ok", f"{whose}: {', '.join(offers) or 'no offers'}{without}", facts=facts)
    for warning in catalog.warnings:
        yield Finding("plugins", "policy", "warn", warning)
    try:
        plugin_settings(catalog, given)
    except Exception as error:  # a plugin's settings class is imported here
        yield Finding("plugins", "settings", "fail", str(error))


def preferences(settings: EngineSettings, catalog: Catalog) -> Iterator[Finding]:
    """Orders among equal offers that name what nobody has."""
    from vllm_core.engine.choices import check_prefer

    for warning in check_prefer({**catalog.policy.prefer, **settings.prefer}, catalog):
        yield Finding("plugins", "prefer", "warn", warning)


def hub() -> Iterator[Finding]:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    models = sorted(p.name.removeprefix("models--").replace("--", "/") for p in folder.glob("models--*"))
    says = f"{folder}, {len(models)} models" if folder.is_dir() else f"{folder}, not there yet"
    yield Finding("Hub", "cache", "ok", says, facts={"folder": str(folder), "models": models})
    offline = bool(constants.HF_HUB_OFFLINE)
    says = "offline mode is on: only what is in the cache is found" if offline else "online; not asked now"
    yield Finding("Hub", "network", "ok", says, facts={"offline": offline})
