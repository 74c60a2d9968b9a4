"""The second half of a decoder layer: norm and gated feed-forward (arXiv 2002.05202) as one layer."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.linear import MergedLinear, RowLinear
from vllm_core.layers.norm import LayerNorm, RMSNorm

ACTIVATIONS = {"silu": "silu_and_mul", "gelu": "gelu_and_mul", "gelu_pytorch_tanh": "gelu_tanh_and_mul"}
"""Names as in config.json "hidden_act" -> op."""


class GatedMLP(Layer):
    """down(act(gate(h)) * up(h)) with h = norm(x + residual).

    Parameters: ``norm.*``, ``gate_up.*`` (slots gate, up), ``down.*``.
    """

    def __init__(
        self, hidden: int, intermediate: int, *, norm: RMSNorm | LayerNorm, act: str = "silu", bias: bool = False
    ) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"hidden_act {act!r} has no gated op; known are {', '.join(ACTIVATIONS)}")
        self.hidden, self.intermediate, self.act = hidden, intermediate, act
        self.norm = norm
        self.gate_up = MergedLinear(hidden, {"gate": intermediate, "up": intermediate}, bias)
        self.down = RowLinear(intermediate, hidden, bias)

    def bound(self, plan: Plan) -> None:
        self.add_norm, self.gate_up_project, self.down_project = self.norm.add, self.gate_up.forward, self.down.forward
        self.share = self.intermediate // plan.group("tp").size
        self.activate = plan.op(ACTIVATIONS[self.act], size=self.share)
        self.run = plan.fused("gated_mlp", self) or self.compose

    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """x, residual [T, hidden] -> (output, residual), both [T, hidden]; the output is not added yet."""
        return self.run(x, residual, batch)

    def fused_shape(self) -> dict[str, int | float | str | bool | None]:
        """What a fused kernel is chosen by: sizes of this rank, in elements."""
        return {
            "hidden": self.hidden,
            "intermediate": self.share,
            "act": self.act,
            "norm": type(self.norm).__name__,
            "bias": self.gate_up.has_bias,
            "linear": type(self.down.method).__name__,
        }

    def compose(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """The layer in single ops: what ``forward`` means, and does unless a kernel is offered."""
        h, residual = self.add_norm(x, residual)
        return self.down_project(self.activate(self.gate_up_project(h))), residual
