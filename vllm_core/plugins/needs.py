"""Capabilities that the user asks of whoever serves a hook: offers without them count as refusals."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.plugins.decision import Answer

__all__ = ["INVARIANT", "Needs"]


@attrs.frozen
class Needs:
    """``capability`` is asked of the offers of ``hooks`` by a setting."""

    capability: str
    hooks: frozenset[str]
    asked_by: str  # "--batch-invariant"

    def only(self, hook: str, answers: Sequence[Answer]) -> list[Answer]:
        """The answers, those without the capability turned into refusals that say so."""
        if hook not in self.hooks:
            return list(answers)
        return [self._refused(a) if a.offer and self.capability not in a.offer.capabilities else a for a in answers]

    def _refused(self, answer: Answer) -> Answer:
        reason = f'does not say that it is "{self.capability}" ({self.asked_by})'
        return attrs.evolve(answer, offer=None, refusal=reason)


INVARIANT = Needs(
    "batch_invariant",
    frozenset(
        {"op_kernel", "attention_backend", "mixer_kernel", "sampler", "moe_router", "expert_kernel", "collective"}
    ),
    "--batch-invariant",
)
"""Everything that computes numbers of a batch's rows."""
