"""The report as a terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_core.cli.doctor.finding import page as findings_page
from vllm_core.plugins.lines import labelled

if TYPE_CHECKING:
    from vllm_core.cli.check.result import Result
    from vllm_core.testing.row import Row

__all__ = ["counted", "figure", "page", "untested_note"]


def page(result: Result, width: int | None) -> str:
    lines = [f"{result.distribution} {result.version}", ""]
    lines += [f"  {name:<14} {version}" for name, version in result.versions.items() if name != result.distribution]
    lines += ["", findings_page(result.findings, width).rpartition("\n\n")[0], "", "tests of offers"]
    for offered in result.offers:
        lines += labelled(offered.offer, untested_note(offered.kit, offered.tests), width, room=30)
    lines += ["", "conformance"]
    if result.run.tests:
        lines += labelled("tests", f"{result.run.tests.path} ({result.run.tests.says})", width)
    for row in result.run.rows:
        lines += _row(row, width)
    for file, why in result.run.broken.items():
        lines += labelled("broken", f"{file}: {why}", width)
    if not result.run.rows and not result.run.broken:
        lines.append("  none ran")
    counts = ", ".join(f"{count} {what}" for what, count in result.counts.items())
    lines += ["", f"{'passed' if result.passed else 'FAILED'}: {counts}"]
    return "\n".join([*lines, *(f"  - {one}" for one in result.failures)])


def _row(row: Row, width: int | None) -> list[str]:
    lines = [f"  {row.tests}: {row.kind} {row.offer}"]
    if row.passed:
        lines += labelled("passed", counted(row.passed), width, indent=4)
    for failure in row.failed:
        lines += labelled("failed", f"{failure.test}: {failure.reason}", width, indent=4)
    for reason, count in sorted(row.skipped.items()):
        lines += labelled("skipped", f"{count}: {reason}", width, indent=4)
    for what, why in row.cannot.items():
        lines += labelled("cannot", f"{what}: {why}", width, indent=4)
    if row.replaced:
        lines += labelled("own", f"tests of the kit that it replaces: {', '.join(row.replaced)}", width, indent=4)
    for measured in row.measured:
        lines += labelled("speed", f"{figure(measured.value)} {measured.unit}: {measured.what}", width, indent=4)
    if row.unmeasured:
        lines += labelled("speed", f"not measured: {row.unmeasured}", width, indent=4)
    return lines


def counted(passed: dict[str, int]) -> str:
    """``modes 30, tensors 20``"""
    return ", ".join(f"{part} {count}" for part, count in sorted(passed.items()))


def figure(value: float) -> str:
    """Two digits that matter: a ratio of two short measurements has no more."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def untested_note(kit: str, tests: tuple[str, ...]) -> str:
    """Which tests are about an offer, or why none are."""
    if tests:
        return ", ".join(tests)
    return "no test of the kit names it" if kit else "no kit for this kind"
