"""The errors of selection, each with what is known and the line that settles it."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_core.plugin import Offer
from vllm_core.plugins.catalog import Catalog
from vllm_core.plugins.decision import Answer, Question
from vllm_core.plugins.errors import Ambiguous, NoOffer, PluginError
from vllm_core.plugins.order import Candidate
from vllm_core.plugins.records import kind_of
from vllm_core.plugins.sets import conflict

__all__ = ["ambiguous", "failed", "incompatible", "no_offer", "shared_name"]


_NAMES_THE_OFFER = {"rope_variant": "rope_type", "moe_router": "router"}
"""Hooks whose query says, in this field, the name of what the model needs."""


def refusals(answers: Sequence[Answer]) -> list[str]:
    """A line for each refusal: whose, why, what to do."""
    return [
        f"{a.label}: {a.refusal}" + (f" (lacks {a.lacks})" if a.lacks else "") + (f"; {a.remedy}" if a.remedy else "")
        for a in answers
        if a.refusal
    ]


def failed(question: Question, answer: Answer, instead: Candidate | None) -> PluginError:
    """What was named raised, or answered nonsense."""
    return PluginError(
        f"{question.what} and cannot be used.",
        by=f"{answer.owner}, plugin {answer.plugin}",
        why=answer.refusal,
        instead=_instead(instead),
    )


def no_offer(catalog: Catalog, question: Question, answers: Sequence[Answer], instead: Candidate | None) -> PluginError:
    """Nobody offers, or what was named is not offered."""
    kind = kind_of(question.hook)
    word = kind.replace("_", " ")
    needed = getattr(question.query, _NAMES_THE_OFFER.get(question.hook, ""), None)
    if question.named is None and needed and not refusals(answers) and needed not in catalog.names(kind):
        error = catalog.nobody(kind, needed)
        return NoOffer(error.title, **error.facts, query=f"{question.query!r:.300}")
    if question.named is None:
        broken = [f"{p.label}: {p.reason}" for p in catalog.plugins if p.state == "quarantined"]
        return NoOffer(
            f"no {word} accepts this engine.",
            why=refusals(answers) or ("nobody was asked: no active plugin implements the hook" if not answers else ""),
            known=", ".join(catalog.names(kind)),
            query=f"{question.query!r:.300}",
            broken=broken,
        )
    other = _instead(instead)
    if question.named not in catalog.names(kind):
        error = catalog.nobody(kind, question.named)
        title = error.title.replace(f'the {word} "{question.named}"', "it", 1)
        return NoOffer(f"{question.what}, and {title}", **error.facts, instead=other)
    mine = [a for a in answers if a.name == question.named and a.refusal]
    owners = [p for p in catalog.active if any((o.kind, o.name) == (kind, question.named) for o in p.provides)]
    if not mine:
        mine = [a for a in answers if a.plugin in {p.name for p in owners} and not a.offer]
    why = refusals(mine) or [f"{p.label} says that the question is not its own (it returned None)" for p in owners]
    return NoOffer(f"{question.what} and cannot be used.", by=[p.owner for p in owners], why=why, instead=other)


def _instead(candidate: Candidate | None) -> str:
    return f"{candidate.answer.label} accepts the same engine; leave the setting out to use it" if candidate else ""


def shared_name(question: Question, answers: Sequence[Answer]) -> Ambiguous:
    """One name that several plugins offer, when it is asked for."""
    word = "model" if question.hook == "models" else question.hook.replace("_", " ")
    return Ambiguous(
        f'{word} "{question.named}" is offered by {" and by ".join(a.owner for a in answers)}.',
        settle=[_line(question.hook, a, a.distribution) for a in answers],
    )


def ambiguous(questions: Sequence[Question], sets: Sequence[Sequence[Candidate]]) -> Ambiguous:
    """Equally good offers: name them and the line that puts one first."""
    for i, question in enumerate(questions):
        answers = list({id(s[i].answer): s[i].answer for s in sets}.values())
        if len(answers) < 2:
            continue
        by_name = len({a.name for a in answers}) == len(answers)
        return Ambiguous(
            f"{question.hook.replace('_', ' ')}: {' and '.join(a.label for a in answers)} are equally good here: "
            f"same rank, no prefer list, no recorded figures.",
            settle=[_line(question.hook, a, a.name if by_name else a.distribution) for a in answers],
        )
    raise AssertionError("equal sets differ in at least one question")


def incompatible(
    questions: Sequence[Question], candidates: Sequence[Sequence[Candidate]], present: Sequence[tuple[str, Offer]]
) -> NoOffer:
    """Every question has an offer, and no set of them fits together: show why the best of each do not."""
    best = [(q.hook, c[0].answer.offer) for q, c in zip(questions, candidates, strict=True) if c[0].answer.offer]
    pairs = [*present, *best]
    why = conflict(pairs, [f"{kind_of(hook)}:{offer.name}" for hook, offer in pairs])
    return NoOffer(
        "no compatible set of " + ", ".join(sorted({q.hook for q in questions})) + " exists.",
        why=why or "each pair of the best offers fits, all of them together do not",
        known=[
            f"{q.hook}: {', '.join(c.answer.label for c in cs)}" for q, cs in zip(questions, candidates, strict=True)
        ],
        named=[q.what for q in questions if q.named is not None],
    )


def _line(hook: str, answer: Answer, name: str) -> str:
    return f'prefer.{hook} = ["{name}"] under [plugins] in vllm.toml takes {answer.label}'
