"""Learned absolute positions, added to the embeddings of tokens."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer


class PositionEmbedding(Layer):
    """A learned vector for each of ``count`` positions; position p has row p + offset of ``weight``."""

    def __init__(self, count: int, hidden: int, offset: int = 0) -> None:
        super().__init__()
        self.count, self.hidden, self.offset = count, hidden, offset

    def setup(self, plan: Plan) -> None:
        rows = self.count + self.offset
        self.begins, self.dtype = plan.group("pp").rank == 0, plan.dtype
        if not self.begins:
            self.elsewhere = [""]
            return
        self.own_parameter(plan, "weight", (rows, self.hidden))
        self.lookup = plan.op("embedding", size=self.hidden, vocab=rows)

    def forward(self, batch: Batch) -> Tensor:
        """[T, hidden] for the tokens of the step. On pipeline stages behind the first: undefined values."""
        if not self.begins:
            return batch.positions.new_empty((batch.num_tokens, self.hidden), dtype=self.dtype)
        rows = batch.positions if self.offset == 0 else batch.positions + self.offset
        return self.lookup(rows, self._parameters["weight"])
