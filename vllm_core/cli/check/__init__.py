"""``vllm-core plugins check DIST``: the conformance kit on an installed plugin, and a report. Imports no torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_core.cli.doctor.finding import guarded
from vllm_core.cli.errors import UsageError
from vllm_core.plugins.lines import columns

if TYPE_CHECKING:
    from vllm_core.cli.check.result import Result

__all__ = ["Check", "check"]


class Check:
    """What a plugin passes of its kit, what it cannot do and why, and how its package is made."""

    about = (
        "Looks at the package of an installed plugin and runs its conformance tests, those of vllm_core.testing. "
        "They are found in its module or folder conformance, or in tests/ of the folder that it was installed from "
        "with pip install -e. Exit code 1 if something failed, or if nothing ran although there is a kit for what "
        "it offers."
    )
    examples = (
        ("plugins check vllm-plugin-owl", "a report, after some minutes"),
        ("plugins check vllm-plugin-owl --html owl.html", "a page to publish beside it"),
        ("plugins check vllm-plugin-owl --tests ./owl/tests", "installed from a wheel, tests in a checkout"),
        ("plugins check vllm-plugin-owl --json -", "for programs"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("distribution", metavar="DIST", help="an installed distribution, or the name of a plugin")
        parser.add_argument(
            "--tests", metavar="FOLDER", type=Path, help="its conformance tests, if not found by themselves"
        )
        parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - prints it, and nothing else")
        parser.add_argument("--html", metavar="FILE", type=Path, help="write the report as one page of HTML")
        parser.add_argument("--no-figures", action="store_true", help="take no figures beside the tests")

    def run(self, args: argparse.Namespace) -> int:
        for file in (args.html, None if args.json in (None, "-") else Path(args.json)):
            if file is not None and not file.absolute().parent.is_dir():
                raise UsageError(f"{file}: there is no folder {file.absolute().parent}")
        result = check(args.distribution, args.tests, figures=not args.no_figures)
        plain = json.dumps(result.plain(), indent=2)
        if args.json == "-":
            print(plain)
        else:
            from vllm_core.cli.check.text import page

            print(page(result, columns()))
            if args.json:
                Path(args.json).write_text(plain + "\n", encoding="utf-8")
        if args.html is not None:
            from vllm_core.cli.check.html import html_page

            args.html.write_text(html_page(result), encoding="utf-8")
        return 0 if result.passed else 1


def check(distribution: str, tests: Path | None = None, *, figures: bool = True) -> Result:
    """All that can be found out about an installed plugin. ``tests``: its conformance tests, if they are elsewhere."""
    from vllm_core.cli.check.entry import entry
    from vllm_core.cli.check.imports import imports
    from vllm_core.cli.check.kits import find_tests, run_kits
    from vllm_core.cli.check.offers import offers
    from vllm_core.cli.check.papers import papers
    from vllm_core.cli.check.result import make_result
    from vllm_core.cli.check.subject import find_subject
    from vllm_core.cli.check.versions import versions
    from vllm_core.config.plugins import plugin_settings
    from vllm_core.plugins import load_catalog

    catalog = load_catalog()
    catalog.settings = plugin_settings(catalog, {})
    subject = find_subject(catalog, distribution)
    found = find_tests(subject, tests)
    findings = [*guarded("module", entry, subject), *guarded("offers", offers, subject)]
    findings += [*guarded("package", imports, subject), *guarded("package", papers, subject)]
    print(f"running conformance tests of {found.path}" if found else "no conformance tests found", file=sys.stderr)
    run = run_kits(found, measure=figures)
    return make_result(subject, findings, run, versions(subject, run.device))
