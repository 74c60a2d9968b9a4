"""A pytest plugin: runs the tests that come from a kit, and writes down how they end. Imports no torch.

    python -m pytest -p vllm_core.testing.report --conformance rows.json [FOLDER OF TESTS]

Other tests are left out. ``--conformance-measure`` takes the figures, too, of classes without a failure. Not with
pytest-xdist: classes are not known where results arrive.
"""

from __future__ import annotations

import json
import linecache
import pkgutil
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import vllm_core.testing
from vllm_core.testing.kit import Conformance
from vllm_core.testing.parts import part_of, replaced
from vllm_core.testing.row import Failure, Row

__all__ = ["Collector", "Report", "read_report"]

LINES, CHARACTERS = 4, 600  # of a failure's reason

# So that a kit's plain assert says what it compared.
pytest.register_assert_rewrite(
    *(
        name
        for _, name, _ in pkgutil.iter_modules(vllm_core.testing.__path__, "vllm_core.testing.")
        if name not in sys.modules
    )
)


class Collector:
    """Keeps the tests that come from a kit, and counts how they end.

    measure   take each class's figures when all tests have ended
    rows      by class and file
    broken    what could not be collected: file -> why
    """

    def __init__(self, out: Path | None = None, *, measure: bool = False) -> None:
        self.out, self.measure = out, measure
        self.rows: dict[tuple[type, Path], Row] = {}
        self.broken: dict[str, str] = {}
        self._of_item: dict[str, tuple[Row, str]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken[report.nodeid] = _short(str(report.longrepr))

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept, others = [], []
        for item in items:
            cls, name = getattr(item, "cls", None), getattr(item, "originalname", "")
            part = part_of(cls, name) if cls is not None else None
            if part is None:
                others.append(item)
                continue
            kept.append(item)
            row = self._row(cls, item.path)
            row.collected[part] += 1
            self._of_item[item.nodeid] = (row, part)
        items[:] = kept
        if others:
            config.hook.pytest_deselected(items=others)

    def _row(self, cls: Any, path: Path) -> Row:
        if (cls, path) not in self.rows:
            self.rows[cls, path] = Row.of(cls, str(path))
            self.rows[cls, path].replaced = replaced(cls)
        return self.rows[cls, path]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self._of_item:
            return
        row, part = self._of_item[report.nodeid]
        test = report.nodeid.rpartition("::")[2]
        if hasattr(report, "wasxfail") and report.skipped:
            # What a plugin does not do is said in `cannot`, where a reader of reports finds it.
            row.failed.append(Failure(test, part, f"marked to fail ({report.wasxfail}): `cannot` says such things"))
        elif report.failed:
            row.failed.append(Failure(test, part, _reason(report)))
        elif report.skipped:
            reason = report.longrepr[2].removeprefix("Skipped: ")  # type: ignore[index]
            # What it cannot do has a place of its own, and where there are no cases nothing is left out.
            if " cannot: " not in reason and not reason.startswith("got empty parameter set"):
                row.skipped[reason] += 1
        elif report.when == "call":
            row.passed[part] += 1

    def pytest_sessionfinish(self) -> None:
        for (cls, _), row in self.rows.items() if self.measure else ():
            if row.passed and not row.failed:
                try:
                    row.measured = list(cls.measure())  # type: ignore[attr-defined]
                except Exception as error:
                    row.unmeasured = f"{type(error).__name__}: {error}"
        if self.out is not None:
            made = Report(list(self.rows.values()), self.broken, _kits(), _device())
            self.out.write_text(json.dumps(attrs.asdict(made)), encoding="utf-8")


@attrs.frozen
class Report:
    """What a run with ``--conformance FILE`` writes."""

    rows: list[Row]
    broken: dict[str, str]  # what could not be collected -> why
    kits: dict[str, str]  # kinds that there is a kit for -> their hook
    device: str  # that tests ran on


def read_report(file: Path) -> Report:
    found = json.loads(file.read_text(encoding="utf-8"))
    return Report(**{**found, "rows": [Row.read(row) for row in found["rows"]]})


def _kits() -> dict[str, str]:
    kits = {}
    for name in vllm_core.testing.__all__:
        with suppress(ImportError):  # one that needs a library which only its users have
            kit = getattr(vllm_core.testing, name)
            if isinstance(kit, type) and issubclass(kit, Conformance) and kit is not Conformance:
                kits[kit.kind] = kit.hook
    return kits


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()})"


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return _short(str(report.longrepr))
    said = _short(crash.message)
    if said in ("AssertionError", "assert"):
        said = linecache.getline(crash.path, crash.lineno).strip() or said
    return f"{said}  [{Path(crash.path).name}:{crash.lineno}]"


def _short(text: str) -> str:
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    shown = "\n".join(lines[:LINES] if len(lines) <= LINES or not lines[-1].startswith("E ") else lines[-LINES:])
    return shown if len(shown) <= CHARACTERS else shown[: CHARACTERS - 3] + "..."


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "the conformance kit of vllm-core")
    group.addoption("--conformance", metavar="FILE", help="run tests of the kit only, and write how they end, as JSON")
    group.addoption("--conformance-measure", action="store_true", help="with --conformance: take figures, too")


def pytest_configure(config: pytest.Config) -> None:
    out = config.getoption("--conformance")
    if out:
        collector = Collector(Path(out).absolute(), measure=config.getoption("--conformance-measure"))
        config.pluginmanager.register(collector, "vllm-core-conformance")
