"""Why the winner won and what became of every other answer, in words."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.plugin import Offer
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.decision import Answer, Question
from vllm_core.plugins.index import advice
from vllm_core.plugins.order import Candidate
from vllm_core.plugins.records import kind_of
from vllm_core.plugins.sets import conflict, normal

__all__ = ["noted", "reason"]


def reason(question: Question, winner: Candidate, candidates: Sequence[Candidate]) -> str:
    """Why this candidate was taken."""
    if question.named is not None:
        return "asked for" + (f" ({question.asked_by})" if question.asked_by else "")
    others = [c for c in candidates if c is not winner]
    if not others:
        return "the only offer"
    if candidates[0] is not winner:
        return "the best that is compatible with the other choices"
    return winner.beats(others[0])


def noted(
    catalog: Catalog,
    index: int,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    candidates: Sequence[Candidate],
    chosen: Sequence[Candidate],
    present: Sequence[tuple[str, Offer]],
) -> tuple[Answer, ...]:
    """The answers to question ``index``, each loser with the reason that it lost."""
    winner = chosen[index]
    places = {id(c.answer): c for c in candidates}
    pairs = [(q.hook, c.answer.offer) for q, c in zip(questions, chosen, strict=True) if c.answer.offer]
    rows = []
    for answer in answers:
        note = ""
        if answer is winner.answer:
            note = "chosen"
        elif answer.lacks:
            note = _partner(catalog, answer.lacks, [*present, *pairs])
        elif answer.offer and _passed_over(questions[index], answer):
            note = f'"{questions[index].named}" was asked for'
        elif answer.offer:
            place = places.get(id(answer))
            swapped = [*present, *pairs[:index], (questions[index].hook, answer.offer), *pairs[index + 1 :]]
            clash = conflict(swapped, [f"{kind_of(hook)}:{offer.name}" for hook, offer in swapped])
            better = winner.beats(place) if place else "named in prefer"
            note = f"does not fit: {clash}" if clash else f"the winner goes before it: {better}"
        rows.append(attrs.evolve(answer, note=note))
    return tuple(rows)


def _passed_over(question: Question, answer: Answer) -> bool:
    return question.named is not None and answer.name != question.named


def _partner(catalog: Catalog, lacks: str, chosen: Sequence[tuple[str, Offer]]) -> str:
    """Where the partner is that a refusal named."""
    kind, _, name = normal(lacks).partition(":")
    if normal(lacks) in {f"{kind_of(hook)}:{offer.name}" for hook, offer in chosen}:
        return (
            f"{lacks}, which it lacks, is part of this set after all: its plugin should offer with needs=({lacks!r},) "
            "instead of refusing"
        )
    if name in catalog.names(kind):
        return f"{lacks}, which it lacks, is installed and was not chosen: name it to get both"
    install = advice(kind, name, {p.distribution for p in catalog.plugins})
    return f"{lacks}, which it lacks, is offered by nobody" + (f": {install}" if install else "")
