"""A decoder layer: attention, then feed-forward."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer


class DecoderLayer(Layer):
    """``attention`` and ``mlp`` are layers that take and return ``(x, residual)`` and do their own norms."""

    def __init__(self, attention: Layer, mlp: Layer) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp

    def bound(self, plan: Plan) -> None:
        self.halves = self.attention.forward, self.mlp.forward

    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        first, second = self.halves
        x, residual = first(x, residual, batch)
        return second(x, residual, batch)
