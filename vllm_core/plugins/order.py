"""The order among offers for one question: rank, then ``prefer``, then recorded figures.

Where these tell nothing apart at the lowest rank, the core's own offer goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import attrs

from vllm_core.interfaces.device import Device
from vllm_core.plugin import Rank
from vllm_core.plugins import figures
from vllm_core.plugins.decision import Answer, Question
from vllm_core.plugins.records import CORE

__all__ = ["FIRST", "Candidate", "order"]

FIRST = len(Rank)
"""The rank of an offer of the plugin that the question puts first."""


@attrs.frozen
class Candidate:
    """An offer and its place. Equal ``tier`` means that nothing known tells the two apart."""

    answer: Answer
    rank: int
    tier: int  # 0 is best
    preferred: int | None = None  # position in the prefer list
    seconds: float | None = None  # recorded figure

    @property
    def is_own_reference(self) -> bool:
        """The core's own, of the lowest rank: a plugin that claims no more than that does not replace it by itself."""
        return self.rank == Rank.REFERENCE and self.answer.plugin == CORE

    def beats(self, other: Candidate) -> str:
        """Why this one goes before another, in words."""
        if self.rank == FIRST != other.rank:
            return "its plugin serves the model"
        if other.tier < self.tier:
            return "the set with it is better"
        if self.rank != other.rank:
            return f"rank {Rank(self.rank).name} over {Rank(other.rank).name}"
        if self.preferred != other.preferred:
            return "named in prefer" if other.preferred is None else "earlier in prefer"
        if self.seconds is not None and other.seconds is not None:
            return f"recorded figures: {self.seconds:.3g} s against {other.seconds:.3g} s"
        if self.is_own_reference:
            return "the core's own before a plugin's of the lowest rank"
        return "the set with it is better"


def order(
    question: Question, answers: Sequence[Answer], prefer: Sequence[str], device: Device | None
) -> list[Candidate]:
    """The offers among ``answers``, best first."""
    shape = figures.shape_class(question.query) if any(a.offer for a in answers) else ""
    rows = []
    for answer in answers:
        if answer.offer is None:
            continue
        rank = FIRST if question.first and answer.plugin == question.first else int(answer.offer.rank)
        names = (answer.offer.name, answer.plugin, answer.distribution)
        preferred = next((i for i, wanted in enumerate(prefer) if wanted in names), None)
        seconds = figures.lookup(question.hook, answer.offer.name, device, shape) if device else None
        rows.append(Candidate(answer, rank, 0, preferred, seconds))

    def place(c: Candidate) -> tuple[int, int]:
        return -c.rank, len(prefer) if c.preferred is None else c.preferred

    ordered: list[Candidate] = []
    tier = 0
    for _, equals in groupby(sorted(rows, key=place), key=place):
        group = list(equals)
        # Figures order a group only if all of it was measured: an unmeasured offer is not a slow one.
        if all(c.seconds is not None for c in group):
            group.sort(key=lambda c: c.seconds or 0.0)
            for i, candidate in enumerate(group):
                tier += i > 0 and candidate.seconds != group[i - 1].seconds
                ordered.append(attrs.evolve(candidate, tier=tier))
        else:
            own = [c for c in group if c.is_own_reference]
            for equal in (own, [c for c in group if c not in own]):
                ordered += [attrs.evolve(c, tier=tier, seconds=None) for c in equal]
                tier += bool(equal)
        tier += 1
    return ordered
