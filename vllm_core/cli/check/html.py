"""The report as one page of HTML: nothing is fetched, nothing runs, every table says what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_core.cli.check.text import counted, figure, untested_note

if TYPE_CHECKING:
    from vllm_core.cli.check.result import Result
    from vllm_core.testing.row import Row

__all__ = ["html_page"]

_WORDS = {"ok": "passed", "warn": "note", "fail": "failed"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_page(result: Result) -> str:
    title = f"{result.distribution} {result.version}: conformance with vllm-core {result.versions['vllm-core']}"
    counts = result.counts
    parts = [
        f"<h1>{escape(result.distribution)} <small>{escape(result.version)}</small></h1>",
        _verdict(result),
        f"<p>{counts['passed']:,} tests of the conformance kit passed, {counts['failed']:,} failed, "
        f"{counts['skipped']:,} were not run here. Made on {escape(result.made)}.</p>",
        _section("Made with", _table("Versions", ("what", "version"), result.versions.items())),
        _section("The package", _findings(result)),
        _section("What it offers", _offers(result)),
        _section("Conformance", _conformance(result)),
        _section("What it cannot do", _cannot(result.run.rows)),
        _section("Figures", _figures(result.run.rows)),
    ]
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(result: Result) -> str:
    if result.passed:
        return '<p class="verdict ok">Passed</p>'
    items = "".join(f"<li>{escape(one)}</li>" for one in result.failures)
    return f'<div class="verdict fail"><p>Failed</p><ul>{items}</ul></div>'


def _findings(result: Result) -> str:
    rows = []
    for found in result.findings:
        says = escape(found.says) + (f"<br><em>Remedy: {escape(found.remedy)}</em>" if found.remedy else "")
        state = f'<span class="{found.verdict}">{_WORDS[found.verdict]}</span>'
        rows.append((found.name, found.section, _Raw(state), _Raw(says)))
    return _table("Checks that need no kit", ("check", "of", "result", "what was found"), rows)


def _offers(result: Result) -> str:
    rows = [(o.offer, o.summary, untested_note(o.kit, o.tests)) for o in result.offers]
    return _table("Offers, and the tests that are about them", ("offer", "summary", "tests"), rows)


def _conformance(result: Result) -> str:
    run = result.run
    rows = []
    for row in run.rows:
        skipped = "; ".join(f"{count}: {reason}" for reason, count in sorted(row.skipped.items()))
        own = f"; replaced by its own: {', '.join(row.replaced)}" if row.replaced else ""
        failed = f"{len(row.failed)}" if row.failed else "none"
        rows.append((f"{row.tests} ({row.kind} {row.offer})", counted(row.passed) + own or "none", failed, skipped))
    parts = (
        [f"<p>Tests: <code>{escape(str(run.tests.path))}</code>, {escape(run.tests.says)}.</p>"] if run.tests else []
    )
    head = ("tests", "passed, by part of the kit", "failed", "not run here, and why")
    parts.append(_table("Tests of the conformance kit", head, rows) if rows else "<p>None ran.</p>")
    failures = [(row.tests, failure.test, failure.reason) for row in run.rows for failure in row.failed]
    failures += [(file, "", why) for file, why in run.broken.items()]
    if failures:
        parts.append(_table("Failures", ("tests", "test", "why"), failures))
    return "\n".join(parts)


def _cannot(rows: Iterable[Row]) -> str:
    said = [(what, why, f"{row.kind} {row.offer}") for row in rows for what, why in row.cannot.items()]
    if not said:
        return "<p>Nothing is declared impossible.</p>"
    return _table("Declared by its author", ("what", "why", "offer"), dict.fromkeys(said))


def _figures(rows: Iterable[Row]) -> str:
    said: list[Sequence[str]] = []
    for row in rows:
        said += [(row.tests, one.what, f"{figure(one.value)} {one.unit}") for one in row.measured]
        if row.unmeasured:
            said.append((row.tests, "not measured", row.unmeasured))
    note = "<p>Ratios within one run on this machine; they pass or fail nothing.</p>"
    return note + _table("Measured beside the tests", ("tests", "of what", "figure"), said) if said else ""


class _Raw(str):
    """Text that is HTML already."""


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = []
    for first, *cells in rows:
        shown = [cell if isinstance(cell, _Raw) else _lines(cell) for cell in cells]
        body.append(f'<tr><th scope="row">{_lines(first)}</th>' + "".join(f"<td>{one}</td>" for one in shown) + "</tr>")
    # It scrolls by itself where it is too wide, and can be reached with the keyboard to do so.
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{top}</tr></thead><tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""
