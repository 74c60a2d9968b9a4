"""Makes docs/conformance_results.md: what every first-party plugin passes of its conformance kit, and what it cannot.

    python -m tests.conformance_results [--stale] [--jobs N] [FOLDER OF TESTS ...]

Each folder's tests run in a process of their own. The results stand in docs/conformance_results.json, from which the
page is made; with folders, or ``--stale``, the rows of others stay. Exits non-zero if a test fails, and writes nothing
of that package. On a CUDA device the page is docs/conformance_results_cuda.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs

from tests.conformance_page import render
from tests.packages import ROOT, Package, plugin_packages
from vllm_core.testing.report import read_report
from vllm_core.testing.row import Row

DOCS = ROOT / "docs"
KEPT = ("kind", "hook", "offer", "tests", "cannot", "collected")  # of a row: what is there without running it
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "vllm_core.testing.report")
NONE = 5  # pytest's exit code for a package without a kit

Found = dict[str, list[dict[str, Any]]]  # distribution -> rows, plain


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Write the table of what first-party plugins pass.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: tests of all packages")
    parser.add_argument("--stale", action="store_true", help="only packages whose rows are not what is there now")
    parser.add_argument("--out", type=Path, help="the JSON; default: that in docs/ for this device")
    parser.add_argument("--jobs", type=int, default=2, help="folders at a time")
    args = parser.parse_args(arguments)
    where, name = here()
    out = args.out or DOCS / f"{name}.json"
    before = json.loads(out.read_text())["packages"] if out.exists() else {}
    packages = [package for package in plugin_packages() if package.folder.joinpath("tests").is_dir()]
    if args.stale:
        said = stale(before, collected(packages))
        packages = [package for package in packages if package.distribution in said]
        print("\n".join(said.values()) or "nothing is stale")
    if args.folders:
        wanted = [folder.absolute() for folder in args.folders]
        packages = [package for package in packages if package.folder / "tests" in wanted]
    known = {package.distribution for package in plugin_packages()}
    rows: Found = {name: rows for name, rows in before.items() if name in known}
    failed = False
    with ThreadPoolExecutor(args.jobs) as pool:
        for package, found in zip(packages, pool.map(run, packages), strict=True):
            if found is None:
                failed = True
                continue
            rows[package.distribution] = found
            write(out, where, rows)  # a run of all takes many minutes; what is done is done
    return int(failed)


def write(out: Path, where: str, rows: Found) -> None:
    """The JSON, and the page beside it."""
    ordered = {name: sorted(rows[name], key=_order) for name in sorted(rows)}
    out.write_text(json.dumps({"with": where, "packages": ordered}, indent=1) + "\n")
    out.with_suffix(".md").write_text(render(where, read(ordered)))


def read(packages: Found) -> dict[str, list[Row]]:
    return {name: [Row.read(row) for row in rows] for name, rows in packages.items()}


def run(package: Package) -> list[dict[str, Any]] | None:
    """The rows of a package; None, and what pytest printed, if a test failed."""
    return _rows([package.folder / "tests"])


def collected(packages: Iterable[Package]) -> Found:
    """The rows as they are now, without running a test."""
    packages = list(packages)
    files = [
        file
        for package in packages
        for file in sorted(package.folder.joinpath("tests").rglob("test_*.py"))
        if "Conformance" in file.read_text(encoding="utf-8")
    ]
    rows = _rows(files, "--collect-only")
    if rows is None:
        raise SystemExit("tests cannot be collected")
    found: Found = {package.distribution: [] for package in packages}
    for row in rows:
        (owner,) = (p for p in packages if p.folder / "tests" in Path(ROOT, row["file"]).parents)
        found[owner.distribution].append(row)
    return found


def stale(before: Found, now: Found) -> dict[str, str]:
    """Distribution -> what of its rows is not what is there now."""
    said = {}
    for name in sorted({*before, *now}):
        old, new = (_by_class(rows.get(name, ())) for rows in (before, now))
        if name not in now:
            said[name] = f"{name} is not there any more"
        elif name not in before:
            said[name] = f"{name} has no entry yet"
        elif old != new:
            classes = sorted(cls for cls in {*old, *new} if old.get(cls) != new.get(cls))
            changes = {cls: _changes(old.get(cls), new.get(cls)) for cls in classes}
            said[name] = f"{name}: " + "; ".join(f"{cls[1]} {how}" for cls, how in changes.items())
    return said


def _by_class(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["file"], row["tests"]): {key: row[key] for key in KEPT} for row in rows}


def _changes(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    if old is None or new is None:
        return "is new" if old is None else "is gone"
    return "has another " + ", ".join(key for key in KEPT if old[key] != new[key])


def _rows(tests: Sequence[Path], *more: str) -> list[dict[str, Any]] | None:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "rows.json")
        command = [*PYTEST, *more, "--conformance", str(out), *map(str, tests)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environ
        )
        if more == ():
            print(done.stdout, end="", flush=True)
        if done.returncode not in (0, NONE):
            print(done.stdout if more else "", end="", flush=True)
            return None
        rows = read_report(out).rows
    return [{**attrs.asdict(row), "file": str(Path(row.file).relative_to(ROOT))} for row in rows]


def _order(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["kind"], row["offer"], row["file"], row["tests"]


def here() -> tuple[str, str]:
    """What the tests run with, and the name of the page that says so."""
    import platform

    import torch

    gpu = torch.cuda.is_available()
    device = f"an {torch.cuda.get_device_name()}" if gpu else f"a CPU ({platform.machine()})"
    name = "conformance_results_cuda" if gpu else "conformance_results"
    return f"torch {torch.__version__.split('+')[0]} on {device}", name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
