"""The best compatible set: one offer for each question, such that all agree on formats and have their partners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vllm_core.plugin import Offer
from vllm_core.plugins.order import Candidate
from vllm_core.plugins.records import kind_of

__all__ = ["best_sets", "conflict"]


def conflict(chosen: Iterable[tuple[str, Offer]], complete: Iterable[str] | None = None) -> str:
    """Why (hook, offer) pairs do not go together, or "".

    Each slot that somebody gives needs a format that all who give and take it share. ``complete``
    are the "kind:name" of the whole set; without it partners (``needs``) are not checked yet.
    """
    chosen = list(chosen)
    for slot in sorted({slot for _, offer in chosen for slot in offer.gives}):
        sides = [
            (f'{hook} "{offer.name}" {verb} {", ".join(formats[slot]) or "nothing"}', set(formats[slot]))
            for hook, offer in chosen
            for verb, formats in (("gives", offer.gives), ("takes", offer.takes))
            if slot in formats
        ]
        if not set.intersection(*(formats for _, formats in sides)):
            return f"{slot}: " + ", ".join(text for text, _ in sides)
    if complete is not None:
        present = set(complete)
        for hook, offer in chosen:
            for need in offer.needs:
                if normal(need) not in present:
                    return f'{hook} "{offer.name}" needs {need}, which is not part of the set'
    return ""


def normal(partner: str) -> str:
    """``kind:name`` with the kind in its usual form."""
    kind, _, name = partner.partition(":")
    return f"{kind_of(kind)}:{name}"


def best_sets(
    hooks: Sequence[str], candidates: Sequence[Sequence[Candidate]], present: Sequence[tuple[str, Offer]] = ()
) -> list[tuple[Candidate, ...]]:
    """All sets that nothing tells apart from the best one; [] if no set is compatible.

    The best has the highest sum of ranks; then the better offer for the first question, the second,
    and so on. ``present`` are choices that stand already, as (hook, offer).
    """
    best: list[tuple[Candidate, ...]] = []
    score: tuple[int, ...] = ()
    # What the questions from i on can add at most, so that a branch is left once it cannot win.
    top = [0] * (len(hooks) + 1)
    for i in range(len(hooks) - 1, -1, -1):
        top[i] = top[i + 1] + max((c.rank for c in candidates[i]), default=0)

    def walk(taken: tuple[Candidate, ...]) -> None:
        nonlocal best, score
        i = len(taken)
        ranks = sum(c.rank for c in taken)
        tiers = tuple(-c.tier for c in taken)
        if score and (ranks + top[i], *tiers) < score[: 1 + i]:
            return
        chosen = [*present, *((hooks[j], c.answer.offer) for j, c in enumerate(taken) if c.answer.offer)]
        if conflict(chosen):
            return
        if i < len(hooks):
            for candidate in candidates[i]:
                walk((*taken, candidate))
            return
        if conflict(chosen, [f"{kind_of(hook)}:{offer.name}" for hook, offer in chosen]):
            return
        reached = (ranks, *tiers)
        if not score or reached > score:
            best, score = [taken], reached
        elif reached == score:
            best.append(taken)

    walk(())
    return best
