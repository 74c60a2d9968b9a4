"""Decisions for people: who offered, who refused and why, who won, from which distribution and version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from vllm_core.plugins.decision import Answer, Decision
from vllm_core.plugins.digest import canonical

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
    }
    return {**row, **{key: value for key, value in facts.items() if value}}


def format_explain(decisions: Iterable[Decision]) -> str:
    """The decisions as text, a block for each."""
    return "\n\n".join(_block(decision) for decision in decisions)


def _block(decision: Decision) -> str:
    asked = f"{decision.hook}: {decision.offer.name}  ({decision.provided.owner}, rank {decision.offer.rank.name})"
    lines = [asked, f"  for     {_query(decision.query)}", f"  why     {decision.why}"]
    labels = {True: "offers", False: "refuses"}
    for answer in decision.answers:
        if answer.offer:
            text = f"{answer.label}, rank {answer.offer.rank.name}"
        elif answer.refusal:
            text = f"{answer.label}: {answer.refusal}" + (f"; {answer.remedy}" if answer.remedy else "")
        else:
            continue
        lines.append(f"  {labels[answer.offer is not None]:<7} {text}" + (f" - {answer.note}" if answer.note else ""))
    silent = sorted({a.plugin for a in decision.answers if not a.offer and not a.refusal})
    if silent:
        lines.append(f"  silent  {', '.join(silent)}")
    return "\n".join(lines)


def _query(query: Any) -> str:
    if not attrs.has(type(query)):
        return repr(query)[:_SHOWN]
    fields = ((f.name, getattr(query, f.name)) for f in attrs.fields(type(query)))
    text = ", ".join(f"{name}={_short(value)}" for name, value in fields)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _short(value: Any) -> str:
    if attrs.has(type(value)):  # a device
        return getattr(value, "name", "") or getattr(value, "type", "") or "..."
    if isinstance(value, dict) and len(value) > 4:
        return "{" + f"{len(value)} fields" + "}"
    return repr(value) if isinstance(value, str) else str(value)
