"""``vllm-core doctor [MODEL]``: what is here, what is missing, and what would help."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from vllm_core.cli.doctor.finding import Finding, guarded, page, report
from vllm_core.cli.engine_flags import add_engine_flags, given_settings
from vllm_core.config.engine import EngineSettings
from vllm_core.plugins.lines import columns

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog

__all__ = ["Doctor"]


class Doctor:
    """Look at the machine, torch, the plugins and the settings; with MODEL, at what it would take to serve it."""

    about = (
        "Looks at the machine, torch, the devices, the plugins and the settings, and says what is wrong and "
        "what helps. With MODEL also whether it would start; no weight is read or downloaded. Exit code 1 if "
        "something fails."
    )
    examples = (
        ("doctor", "this machine"),
        ("doctor ./my-model --max-model-len 32000", "would this start?"),
        ("doctor --json", "for programs"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as JSON")
        add_engine_flags(parser, optional=True)

    def run(self, args: argparse.Namespace) -> int:
        findings = examine(args)
        result = report(findings)
        if args.json:
            print(json.dumps(result, indent=2, default=str))
        else:
            print(page(findings, columns()))
        return 1 if result["verdict"] == "fail" else 0


def examine(args: argparse.Namespace) -> list[Finding]:
    """All findings, in the order in which they are read."""
    from vllm_core.cli.doctor import setup
    from vllm_core.cli.doctor.devices import devices
    from vllm_core.cli.doctor.machine import machine
    from vllm_core.cli.doctor.model import model
    from vllm_core.cli.doctor.torch_build import TorchProbe

    probe = TorchProbe()  # takes a second or two, beside all that follows
    read = setup.Settings(args.config, given_settings(args))
    of_settings = guarded("settings", read.findings)
    settings = read.loaded.settings if read.loaded else EngineSettings()
    catalogs: list[Catalog] = []
    of_plugins = guarded("plugins", _plugins, settings, catalogs)
    found = [*guarded("machine", machine), *guarded("torch", probe.findings)]
    works = probe.facts is not None and bool(catalogs)
    if works:
        of_plugins += guarded("plugins", setup.preferences, settings, catalogs[0])
        found += guarded("devices", devices, catalogs[0], settings, probe.facts)
    found += [*of_plugins, *of_settings, *guarded("Hub", setup.hub)]
    named = settings.model or args.model
    if named and works and read.loaded:
        found += guarded("model", model, settings, catalogs[0])
    elif named:
        found.append(Finding("model", named, "fail", "not looked at: see the failures above"))
    return found


def _plugins(settings: EngineSettings, catalogs: list[Catalog]) -> list[Finding]:
    from vllm_core.cli.doctor import setup
    from vllm_core.plugins import load_catalog, read_policy

    catalogs.append(load_catalog(read_policy(settings.plugins)))
    return list(setup.plugins(catalogs[0], settings.plugin))
