"""A decoder layer whose halves read the same input (as in GPT-J)."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.norm import LayerNorm, RMSNorm


class ParallelDecoderLayer(Layer):
    """x + attention(norm(x)) + mlp(norm(x)).

    norm   of both halves, which then have `NoNorm`; None: each half does its own
    """

    def __init__(self, attention: Layer, mlp: Layer, norm: RMSNorm | LayerNorm | None = None) -> None:
        super().__init__()
        self.norm = norm
        self.attention = attention
        self.mlp = mlp

    def bound(self, plan: Plan) -> None:
        self.halves = self.attention.forward, self.mlp.forward

    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """x, residual [T, hidden] -> (output, residual), both [T, hidden]; the output is not added yet."""
        attend, feed = self.halves
        if self.norm is None:
            # The sum that the first half made is the input of the second, which hands it back.
            first, total = attend(x, residual, batch)
            second, total = feed(total, None, batch)
        else:
            h, total = self.norm.add(x, residual)
            first, second = attend(h, None, batch)[0], feed(h, None, batch)[0]
        return first + second, total
