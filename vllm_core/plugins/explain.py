"""Decisions for people: who offered, who refused and why, who won, from which distribution and version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from vllm_core.plugin import Offer
from vllm_core.plugins.decision import Answer, Decision
from vllm_core.plugins.digest import canonical
from vllm_core.plugins.lines import labelled

__all__ = ["explain", "format_explain"]

_SHOWN = 200  # characters of a query


def explain(decisions: Iterable[Decision]) -> dict[str, Any]:
    """The decisions as JSON can hold them."""
    return {"choices": [_choice(decision) for decision in decisions]}


def _choice(decision: Decision) -> dict[str, Any]:
    return {
        "hook": decision.hook,
        "query": canonical(decision.query),
        "named": decision.named,
        "chosen": {
            "name": decision.offer.name,
            "target": decision.offer.target,
            "rank": decision.offer.rank.name,
            "plugin": decision.provided.plugin,
            "distribution": decision.provided.distribution,
            "version": decision.provided.version,
            "options": canonical(decision.offer.options),
        },
        "why": decision.why,
        "answers": [_answer(a) for a in decision.answers],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    said = "offer" if answer.offer else "refusal" if answer.refusal else "none"
    row = {"plugin": answer.plugin, "distribution": answer.distribution, "version": answer.version, "answer": said}
    facts = {
        "name": answer.name,
        "rank": answer.offer.rank.name if answer.offer else "",
        "reason": answer.refusal,
        "remedy": answer.remedy,
        "lacks": answer.lacks,
        "note": answer.note,
        "options": canonical(answer.offer.options) if answer.offer else {},
    }
    return {**row, **{key: value for key, value in facts.items() if value}}


def format_explain(decisions: Iterable[Decision], width: int | None = None) -> str:
    """The decisions as text: first who does what, then each question with all answers to it.

    ``width`` in characters; None: lines as long as they are.
    """
    decisions = list(decisions)
    return "\n\n".join([_summary(decisions), *(_block(decision, width) for decision in decisions)])


def _summary(decisions: list[Decision]) -> str:
    """A line a choice; questions of one hook with the same outcome share one."""
    rows = [("choice", "taken", "from", "because")]
    rows += dict.fromkeys((d.hook, d.offer.name, d.provided.owner, d.why) for d in decisions)
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows)


def _block(decision: Decision, width: int | None) -> str:
    chosen = f"{decision.offer.name} ({decision.provided.owner}), rank {decision.offer.rank.name}: {decision.why}"
    rows = [("asked", _query(decision.query)), ("chosen", chosen), *_options(decision.offer)]
    for answer in decision.answers:
        note = f" - {answer.note}" if answer.note else ""
        if answer.offer and answer.offer is not decision.offer:
            rows += [("offers", f"{answer.label}, rank {answer.offer.rank.name}{note}"), *_options(answer.offer)]
        elif answer.refusal:
            remedy = f"; {answer.remedy}" if answer.remedy else ""
            rows.append(("refuses", f"{answer.label}: {answer.refusal}{remedy}{note}"))
    silent = sorted({a.plugin for a in decision.answers if not a.offer and not a.refusal})
    if silent:
        rows.append(("silent", f"{', '.join(silent)} (the question is not theirs)"))
    lines = [line for label, text in rows for line in labelled(label, text, width)]
    return "\n".join([f"{decision.hook}: {decision.offer.name}", *lines])


def _options(offer: Offer) -> list[tuple[str, str]]:
    """What the offer came with: numbers for its target, and reasons why it is not another one."""
    told = (f"{key}: {_short(value)}" for key, value in offer.options.items() if value not in (None, "", (), {}, []))
    return [("with", text)] if (text := "; ".join(told)) else []


def _query(query: Any) -> str:
    """What was asked, less what is empty."""
    if not attrs.has(type(query)):
        return repr(query)[:_SHOWN]
    fields = ((f.name, getattr(query, f.name)) for f in attrs.fields(type(query)))
    known = ((name, value) for name, value in fields if value not in (None, False, "", (), {}))
    text = ", ".join(name if value is True else f"{name} {_short(value)}" for name, value in known)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _short(value: Any) -> str:
    if attrs.has(type(value)):  # a device
        return getattr(value, "name", "") or getattr(value, "type", "") or "..."
    if isinstance(value, str) and len(value) > 80 and "{" in value and len(value.split()) > 3:  # a template
        return f"of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"of {len(value)} fields" if len(value) > 4 else " ".join(f"{k}={v}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
