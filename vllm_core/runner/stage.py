"""What the runners of pipeline stages say to each other: hidden states go forward, what was sampled comes back.

Calls on each group are made in the order of steps on every stage, and none waits for a device's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.group import ProcessGroup

__all__ = ["Stage"]


@attrs.define(eq=False)
class Stage:
    """One of ``forward.size`` stages; ``ids`` joins the same ranks in the same order.

    Two groups, because what is on its way in one direction must not hold up the other.
    """

    forward: ProcessGroup
    ids: ProcessGroup
    _like: Tensor | None = None  # hidden states of no token

    @classmethod
    def of(cls, groups: Mapping[str, ProcessGroup], device: torch.device) -> Stage | None:
        """Of a rank's groups, once all others are there as well; None: the rank has all layers."""
        if "pp" not in groups:
            return None
        stage = cls(groups["pp"], groups["ids"])
        stage.meet(device)
        return stage

    @property
    def first(self) -> bool:
        return self.forward.rank == 0

    @property
    def last(self) -> bool:
        return self.forward.rank == self.forward.size - 1

    def meet(self, device: torch.device) -> None:
        """Speak once with everybody who will be spoken to: some backends make a connection only then, and wait."""
        word = torch.zeros(1, dtype=torch.int32, device=device)
        if not self.first:
            self.forward.receive(word, self.forward.rank - 1)
        if not self.last:
            self.forward.send(word.clone(), self.forward.rank + 1)
        if self.last:
            self.tell(word)
        else:
            self.hear(word)

    def entry(self, embed: Callable[[Tensor, Batch], Tensor]) -> Callable[[Tensor, Batch], Tensor]:
        """In the place of the model's ``embed``: where hidden states come from on this stage."""
        return embed if self.first else lambda ids, batch: self._receive(embed, ids, batch)

    def _receive(self, embed: Callable[[Tensor, Batch], Tensor], ids: Tensor, batch: Batch) -> Tensor:
        """[T, hidden] of the stage before; the first time ``embed`` says what shape and dtype they have."""
        if self._like is None:
            self._like = embed(ids, batch)[:0]
        x = self._like.new_empty((len(ids), *self._like.shape[1:]))
        return self.forward.receive(x, self.forward.rank - 1)

    def fill(self, x: Tensor, tokens: int) -> None:
        """The first ``tokens`` lines of a static x [T, hidden] become those of the stage before, the others 0."""
        self.forward.receive(x[:tokens], self.forward.rank - 1)
        x[tokens:].zero_()

    def pass_on(self, hidden: Tensor) -> None:
        """To the next stage, which makes a step of the same plan."""
        self.forward.send(hidden.contiguous(), self.forward.rank + 1)

    def tell(self, sampled: Tensor) -> None:
        """From the last stage to all others."""
        for stage in range(self.ids.size - 1):
            self.ids.send(sampled, stage)

    def hear(self, sampled: Tensor) -> Tensor:
        """What the last stage told, in the order of its steps."""
        return self.ids.receive(sampled, self.ids.size - 1)

    def runner(self) -> Any:
        """The class of this stage's runner."""
        from vllm_core.runner.staged import EarlyStage, LastStage

        return LastStage if self.last else EarlyStage
