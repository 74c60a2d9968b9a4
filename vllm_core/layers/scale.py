"""A factor on what a half of a layer adds to the residual (Granite, MiniCPM)."""

from __future__ import annotations

from torch import Tensor

from vllm_core.layers.base import Layer


class Scale(Layer):
    """x * factor. As ``post_norm`` of a half."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
