"""docs/conformance_results.md, from the rows of all packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vllm_core.testing.parts import words
from vllm_core.testing.row import Row

_HEAD = """# What first-party plugins pass

Made by `make conformance`; do not edit. Numbers count tests of the [conformance kit](conformance.md) for the
kind of plugin; none failed. Run with {where}. What a plugin's author sees of his own plugin:
`vllm-core plugins check DIST`.

A test compares classes, what they cannot do and the number of their tests with what is there, without running them.
`make conformance-stale` refreshes what it names."""


def render(where: str, packages: Mapping[str, Sequence[Row]]) -> str:
    lines = [_HEAD.format(where=where), "", *_summary(packages)]
    rows = [(name, row) for name, rows in packages.items() for row in rows]
    for kind in sorted({row.kind for _, row in rows}):
        lines += ["", f"## {words(kind).capitalize()}", ""]
        lines += ["| offer | tests | passed, by part of the kit | not run here |", "|---|---|---|---|"]
        for name, row in sorted(rows, key=lambda pair: (pair[0], pair[1].offer, pair[1].tests)):
            if row.kind != kind:
                continue
            passed = ", ".join(f"{part} {count}" for part, count in sorted(row.passed.items()))
            skipped = "; ".join(f"{count}: {_cell(reason)}" for reason, count in sorted(row.skipped.items()))
            lines.append(f"| `{row.offer}`, {name} | `{row.tests}` | {passed} | {skipped} |")
    return "\n".join([*lines, "", *_limits(row for _, row in rows)]) + "\n"


def _summary(packages: Mapping[str, Sequence[Row]]) -> list[str]:
    """A line for each package."""
    lines = ["| plugin | kinds | passed | not run here | cannot |", "|---|---|---|---|---|"]
    without = []
    for name, rows in packages.items():
        if not rows:
            without.append(name)
            continue
        kinds = ", ".join(sorted({words(row.kind) for row in rows}))
        passed, skipped = (sum(getattr(row, what).total() for row in rows) for what in ("passed", "skipped"))
        cannot = ", ".join(sorted({_cell(what) for row in rows for what in row.cannot}))
        lines.append(f"| {name} | {kinds} | {passed:,} | {skipped:,} | {cannot} |")
    if without:
        lines += ["", f"With tests of their own only: {', '.join(without)}."]
    return lines


def _limits(rows: Iterable[Row]) -> list[str]:
    lines = ["## What they cannot do", "", "| what | why | offers |", "|---|---|---|"]
    said: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for limit in row.cannot.items():
            said.setdefault(limit, {})[f"`{row.offer}`"] = None
    return lines + [f"| {_cell(a)} | {_cell(why)} | {', '.join(offers)} |" for (a, why), offers in sorted(said.items())]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
