"""Norms, alone or together with the addition of the residual before them."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer


class RMSNorm(Layer):
    """``norm(x)``, or ``norm.add(x, residual) -> (norm(x + residual), x + residual)``."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.size, self.eps = size, eps

    def setup(self, plan: Plan) -> None:
        self.own_parameter(plan, "weight", (self.size,))
        self.norm = plan.op("rms_norm", size=self.size)
        self.add_norm = plan.op("add_rms_norm", size=self.size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self._parameters["weight"], self.eps)

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """x and residual [T, size]; both may be overwritten. Without a residual yet, x becomes it."""
        if residual is None:
            return self.norm(x, self._parameters["weight"], self.eps), x
        return self.add_norm(x, residual, self._parameters["weight"], self.eps)


class LayerNorm(Layer):
    """The same with the mean taken off and, if wanted, a bias."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.size, self.eps, self.has_bias = size, eps, bias

    def setup(self, plan: Plan) -> None:
        self.own_parameter(plan, "weight", (self.size,))
        if self.has_bias:
            self.own_parameter(plan, "bias", (self.size,))
        self.norm = plan.op("layer_norm", size=self.size)
        self.add_norm = plan.op("add_layer_norm", size=self.size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self._parameters["weight"], self._parameters.get("bias"), self.eps)

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `RMSNorm.add`."""
        if residual is None:
            return self.forward(x), x
        return self.add_norm(x, residual, self._parameters["weight"], self._parameters.get("bias"), self.eps)


class OffsetRMSNorm(RMSNorm):
    """RMSNorm whose stored weight is the distance from 1, multiplied before x is rounded to its dtype again."""

    scale: Tensor  # 1 + weight, float32 [size]: in bfloat16 the sum would lose what the weight says

    def setup(self, plan: Plan) -> None:
        self.own_parameter(plan, "weight", (self.size,))
        if getattr(self, "scale", None) is None or self.scale.device != plan.torch_device:
            self.scale = torch.empty(self.size, dtype=torch.float32, device=plan.torch_device)
        weight = {} if plan.dtype == torch.float32 else {"weight": "float32"}
        self.norm = plan.op("rms_norm", size=self.size, **weight)
        self.add_norm = plan.op("add_rms_norm", size=self.size, **weight)

    def loaded(self) -> None:
        torch.add(self._parameters["weight"].float(), 1.0, out=self.scale)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.scale, self.eps)

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            return self.forward(x), x
        return self.add_norm(x, residual, self.scale, self.eps)


class NoNorm(Layer):
    """In the place of a norm where x was normed before: ``add(x, None) -> (x, x)``.

    For halves of a layer that share one norm. Their input is shared, too: it must not be overwritten.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, x if residual is None else residual


class AddOnly(Layer):
    """In the place of a norm before a half that norms only what it gives: ``add(x, residual)`` gives the sum twice."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def add(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        total = x if residual is None else x + residual
        return total, total
