"""Finds the conformance tests of an installed plugin, and runs them in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from vllm_core.cli.check.subject import SHIPPED
from vllm_core.cli.errors import UsageError

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject
    from vllm_core.testing.row import Row

__all__ = ["Run", "Tests", "find_tests", "run_kits"]

NONE = 5  # pytest's exit code where it found no test


@attrs.frozen
class Tests:
    """Where conformance tests lie, and how they were found."""

    path: Path
    says: str


@attrs.frozen(kw_only=True)
class Run:
    """What came of them.

    kits      kinds that this core has a kit for -> the hook
    broken    files that could not be collected -> why
    problem   why nothing was run, or how the run ended before its time
    """

    tests: Tests | None
    rows: tuple[Row, ...] = ()
    broken: dict[str, str] = attrs.field(factory=dict)
    kits: dict[str, str] = attrs.field(factory=dict)
    device: str = ""
    problem: str = ""


def find_tests(subject: Subject, given: Path | None) -> Tests | None:
    """``--tests``; or the module or folder `SHIPPED` of its package; or, of an editable install, tests/ beside it."""
    if given is not None:
        if not given.exists():
            raise UsageError(f"--tests {given}: there is no such file or folder")
        return Tests(given, "--tests")
    for folder in subject.folders:
        for path in (folder / SHIPPED, folder / f"{SHIPPED}.py"):
            if path.exists():
                return Tests(path, f"installed with it, as {folder.name}.{SHIPPED}")
    if subject.checkout is not None and (path := subject.checkout / "tests").is_dir():
        return Tests(path, "tests/ of the folder that it was installed from")
    return None


def run_kits(tests: Tests | None, *, measure: bool = True) -> Run:
    """What pytest prints goes to standard error as it comes."""
    if find_spec("pytest") is None:
        return Run(tests=tests, problem="pytest is not installed; the kit runs with it: pip install pytest")
    from vllm_core.testing.report import read_report

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "rows.json")
        command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "--import-mode=importlib", "--no-header"]
        command += ["-p", "no:cacheprovider", "-p", "vllm_core.testing.report", "--conformance", str(out)]
        command += ["--conformance-measure"] if measure else []
        command += [str(tests.path)] if tests else ["--collect-only", str(Path(temporary, "none"))]
        Path(temporary, "none").mkdir()
        code, last = _run(command, quiet=tests is None)
        if not out.exists():
            return Run(tests=tests, problem=f"pytest ended with exit code {code} before its time: {last}")
        found = read_report(out)
    problem = "" if code in (0, 1, NONE) or found.broken else f"pytest ended with exit code {code}: {last}"
    return Run(
        tests=tests,
        rows=tuple(found.rows),
        broken=found.broken,
        kits=found.kits,
        device=found.device,
        problem=problem,
    )


def _run(command: list[str], *, quiet: bool) -> tuple[int, str]:
    """Exit code, and the last line that says something."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ)
    said: deque[str] = deque(maxlen=20)
    assert child.stdout is not None
    rest = b""
    while chunk := os.read(child.stdout.fileno(), 1 << 14):
        if not quiet:
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        said.extend(line.decode(errors="replace").strip() for line in lines if line.strip())
    return child.wait(), said[-1] if said else ""
