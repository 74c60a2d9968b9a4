"""All that a check came to: what pages and programs read."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from vllm_core.plugins.records import kind_of

if TYPE_CHECKING:
    from vllm_core.cli.check.kits import Run
    from vllm_core.cli.check.subject import Subject
    from vllm_core.cli.doctor.finding import Finding

__all__ = ["Offered", "Result", "make_result"]


@attrs.frozen
class Offered:
    """One offer of the plugin, and the classes of tests that are about it."""

    offer: str  # "tool_parser:owl"
    summary: str
    kit: str  # the kind whose kit tests it; "" if there is none
    tests: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Result:
    """``failures``: one line each; empty if the plugin passes."""

    distribution: str
    version: str
    plugins: list[str]
    made: str  # ISO 8601, UTC
    versions: dict[str, str]
    findings: list[Finding]
    offers: list[Offered]
    run: Run
    failures: list[str]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def counts(self) -> dict[str, int]:
        """Tests of the kits: passed, failed, skipped."""
        rows = self.run.rows
        return {
            "passed": sum(row.passed.total() for row in rows),
            "failed": sum(len(row.failed) for row in rows) + len(self.run.broken),
            "skipped": sum(row.skipped.total() for row in rows),
        }

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        found = attrs.asdict(self, value_serializer=_plain)
        run = found.pop("run")
        tests = run.pop("tests") or {"path": "", "says": ""}
        return {
            "verdict": "passed" if self.passed else "failed",
            **found,
            "counts": self.counts,
            "tests": tests["path"],
            "tests_found": tests["says"],
            **run,
        }


def make_result(subject: Subject, findings: list[Finding], run: Run, versions: dict[str, str]) -> Result:
    by_hook = {kind_of(hook): kind for kind, hook in run.kits.items()}
    offers = [
        Offered(
            str(offering),
            offering.summary,
            by_hook.get(offering.kind, ""),
            tuple(r.tests for r in run.rows if (kind_of(r.hook), r.offer) == (offering.kind, offering.name)),
        )
        for plugin in subject.plugins
        for offering in plugin.provides
    ]
    return Result(
        distribution=subject.name,
        version=subject.version,
        plugins=[plugin.name for plugin in subject.plugins],
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions,
        findings=findings,
        offers=offers,
        run=run,
        failures=[*_failures(findings, run), *_untested(subject, offers, run)],
    )


def _failures(findings: list[Finding], run: Run) -> list[str]:
    found = [f"{finding.name}: {finding.says}" for finding in findings if finding.verdict == "fail"]
    found += [f"{row.tests}: {len(row.failed)} of its tests failed" for row in run.rows if row.failed]
    found += [f"{file} could not be read: {why.splitlines()[0]}" for file, why in run.broken.items() if why]
    return [*found, run.problem] if run.problem else found


def _untested(subject: Subject, offers: list[Offered], run: Run) -> list[str]:
    """Why nothing shows that it works, if that is so although there are kits for what it offers."""
    kinds = {offered.kit for offered in offers if offered.kit}
    if any("model" in plugin.hooks for plugin in subject.plugins):
        kinds.add("model")  # models that it is asked about, and does not list
    if run.problem or not kinds or any(row.passed for row in run.rows):
        return []
    words = ", ".join(sorted(kinds))
    if run.tests is None:
        return [f"no conformance test was found, though there is a kit for: {words}"]
    if not run.rows and not run.broken:
        return [f"{run.tests.path} has no class of a conformance kit, though there is one for: {words}"]
    skipped: Counter[str] = sum((row.skipped for row in run.rows), Counter())
    why = skipped.most_common(1)[0][0] if skipped else "none was left"
    return [] if any(row.failed for row in run.rows) else [f"no conformance test ran: {why}"]


def _plain(instance: Any, attribute: Any, value: Any) -> Any:
    return str(value) if hasattr(value, "__fspath__") else value
