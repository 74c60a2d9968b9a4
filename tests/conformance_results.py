"""Makes docs/conformance_results.md: what every first-party plugin passes of its conformance kit, and what it cannot.

    python -m tests.conformance_results [--out FILE] [--jobs N] [FOLDER OF TESTS ...]

Each folder's tests run in a process of their own. Exits non-zero, and writes nothing, if a test fails. On a CUDA device
the page is docs/conformance_results_cuda.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from tests.packages import ROOT, plugin_packages

DOCS = ROOT / "docs"
# What a kit's class calls its subject.
SUBJECTS = ("backend", "rope_type", "parser", "method", "architecture")


@attrs.define
class Row:
    """One class of conformance tests."""

    kit: str  # "Model", "Attention", ...
    offer: str
    tests: str  # name of the class
    distribution: str
    cannot: dict[str, str]
    passed: Counter[str] = attrs.field(factory=Counter)  # by part of the kit
    skipped: Counter[str] = attrs.field(factory=Counter)  # by reason
    failed: list[str] = attrs.field(factory=list)


class Collector:
    """A pytest plugin: keeps the tests that come from a kit, and counts how they end."""

    def __init__(self) -> None:
        self.distributions = {package.folder: package.distribution for package in plugin_packages()}
        self.rows: dict[type, Row] = {}
        self._of_item: dict[str, tuple[Row, str]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept, others = [], []
        for item in items:
            cls, name = getattr(item, "cls", None), getattr(item, "originalname", "")
            part = part_of(cls, name) if cls is not None else None
            if part is None:
                others.append(item)
                continue
            kept.append(item)
            self._of_item[item.nodeid] = (self._row(cls, item.path), part)
        items[:] = kept
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row, part = self._of_item[report.nodeid]
        if report.failed:
            row.failed.append(report.nodeid)
        elif report.skipped:
            reason = report.longrepr[2].removeprefix("Skipped: ")  # type: ignore[index]
            # What it cannot do has a table of its own, and where there are no cases nothing is left out.
            if " cannot: " not in reason and not reason.startswith("got empty parameter set"):
                row.skipped[reason] += 1
        elif report.when == "call":
            row.passed[part] += 1

    def _row(self, cls: type, path: Path) -> Row:
        if cls not in self.rows:
            known = self.distributions.get(path.parents[1], path.parents[1].name)
            offer = next((found for name in SUBJECTS if (found := getattr(cls, name, None))), cls.__name__)
            self.rows[cls] = Row(kit_of(cls), offer, cls.__name__, known, dict(getattr(cls, "cannot", {})))
        return self.rows[cls]


def kit_of(cls: type) -> str:
    """The kind of plugin that the kit of a class is for; "" if it is none."""
    names = [base.__name__ for base in cls.__mro__ if base.__module__.startswith("vllm_core.testing")]
    return next((name.removesuffix("Conformance") for name in names if name.endswith("Conformance")), "")


def part_of(cls: type, test: str) -> str | None:
    """The part of the kit that a test comes from; None if the class has no kit or the test is the class's own."""
    owner = next((base for base in cls.__mro__ if test in vars(base)), None)
    if owner is None or not owner.__module__.startswith("vllm_core.testing") or not kit_of(cls):
        return None
    return words(owner.__name__).removeprefix(f"{words(kit_of(cls))} ").removesuffix("conformance").strip() or "kit"


def words(name: str) -> str:
    """ "PluginModule" -> "plugin module" """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def render(rows: Iterable[Row], where: str) -> str:
    rows = sorted(rows, key=lambda row: (row.kit, row.distribution, row.offer, row.tests))
    lines = [
        "# What first-party plugins pass",
        "",
        "Made by `make conformance`; do not edit. Numbers count tests of the [conformance kit](conformance.md) for the",
        f"kind of plugin, by parts of the kit; none failed. Run with {where}.",
    ]
    for kit in dict.fromkeys(row.kit for row in rows):
        lines += [
            "",
            f"## {words(kit).capitalize()}",
            "",
            "| offer | tests | passed | not run here |",
            "|---|---|---|---|",
        ]
        for row in (row for row in rows if row.kit == kit):
            passed = ", ".join(f"{part} {count}" for part, count in sorted(row.passed.items()))
            skipped = "; ".join(f"{count}: {_cell(reason)}" for reason, count in sorted(row.skipped.items()))
            lines.append(f"| `{row.offer}`, {row.distribution} | `{row.tests}` | {passed} | {skipped} |")
    lines += ["", "## What they cannot do", "", "| what | why | offers |", "|---|---|---|"]
    said: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for limit in row.cannot.items():
            said.setdefault(limit, {})[f"`{row.offer}`"] = None
    lines += [f"| {_cell(what)} | {_cell(why)} | {', '.join(offers)} |" for (what, why), offers in sorted(said.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def here() -> tuple[str, Path]:
    """What the tests run with, and the page that says so."""
    import torch

    gpu = torch.cuda.is_available()
    device = f"an {torch.cuda.get_device_name()}" if gpu else f"a CPU ({platform.machine()})"
    page = DOCS / ("conformance_results_cuda.md" if gpu else "conformance_results.md")
    return f"torch {torch.__version__.split('+')[0]} on {device}", page


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write the table of what first-party plugins pass.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: tests of all packages")
    parser.add_argument("--out", type=Path, help="default: the page in docs/ for this device")
    parser.add_argument("--jobs", type=int, default=2, help="folders at a time")
    parser.add_argument("--rows", type=Path, help="run in this process, and write JSON")
    args = parser.parse_args(arguments)
    folders = args.folders or [package.folder / "tests" for package in plugin_packages()]
    if args.rows:
        return _run(folders, args.rows)
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(_rows_of, folders))
    if None in found:
        return 1
    where, page = here()
    (args.out or page).write_text(render((row for rows in found for row in rows or ()), where))
    return 0


def _run(folders: Sequence[Path], out: Path) -> int:
    collector = Collector()
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *map(str, folders)], plugins=[collector]))
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:  # a package without a kit
        code = 0
    out.write_text(json.dumps([attrs.asdict(row) for row in collector.rows.values()]))
    return code


def _rows_of(folder: Path) -> list[Row] | None:
    """What a process of its own found there; None, and its output printed, if a test failed."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "rows.json")
        command = [sys.executable, "-m", "tests.conformance_results", "--rows", str(out), str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            return None
        rows = json.loads(out.read_text())
    return [Row(**row | {key: Counter(row[key]) for key in ("passed", "skipped")}) for row in rows]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
