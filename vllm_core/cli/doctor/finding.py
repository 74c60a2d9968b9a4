"""What the doctor finds: one line each, with a verdict, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

import attrs

from vllm_core.plugins.lines import labelled

__all__ = ["Finding", "guarded", "page", "report"]

Verdict = Literal["ok", "warn", "fail"]
_ROOM = 18  # characters for a name


@attrs.frozen
class Finding:
    section: str  # "machine", "torch", "devices", "plugins", "settings", "Hub", "model"
    name: str
    verdict: Verdict
    says: str  # one line, or several as an error message has them
    remedy: str = attrs.field(default="", kw_only=True)
    facts: dict[str, Any] = attrs.field(factory=dict, kw_only=True)  # for --json: the same in numbers


def guarded(section: str, look: Callable[..., Iterable[Finding]], *given: Any) -> list[Finding]:
    """What ``look`` finds; an error that ends it is a finding too."""
    found: list[Finding] = []
    try:
        found.extend(look(*given))
    except Exception as error:
        found.append(Finding(section, section, "fail", f"{type(error).__name__}: {error}"))
    return found


def page(findings: Sequence[Finding], width: int | None) -> str:
    """What a person reads."""
    lines: list[str] = []
    for section, group in groupby(findings, lambda finding: finding.section):
        lines += ["", section] if lines else [section]
        for finding in group:
            first, *more = finding.says.splitlines() or [""]
            head = f"{finding.verdict:<4}  {finding.name:<{_ROOM}}"
            lines += labelled(head, first, width, room=_ROOM + 6)
            lines += [f"{'':{_ROOM + 9}}{line.strip()}" for line in more]
            if finding.remedy:
                lines += labelled("", f"-> {finding.remedy}", width, room=_ROOM + 6)
    return "\n".join([*lines, "", _sum(findings)])


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    verdicts = {finding.verdict for finding in findings}
    worst = next((verdict for verdict in ("fail", "warn") if verdict in verdicts), "ok")
    return {"verdict": worst, "findings": [attrs.asdict(finding) for finding in findings]}


def _sum(findings: Sequence[Finding]) -> str:
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("fail", "warn")}
    if not any(counts.values()):
        return "all is well"
    names = {"fail": "failure", "warn": "warning"}
    said = [f"{n} {names[v]}{'' if n == 1 else 's'}" for v, n in counts.items() if n]
    return ", ".join(said) + ("" if counts["fail"] else "; nothing that stops a model")
