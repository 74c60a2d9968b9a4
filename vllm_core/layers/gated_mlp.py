"""The second half of a decoder layer: norm and gated feed-forward (arXiv 2002.05202) as one layer."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.fused import fused_over_ranks
from vllm_core.layers.linear import MergedLinear, RowLinear
from vllm_core.layers.norm import AddOnly, LayerNorm, NoNorm, RMSNorm
from vllm_core.layers.params import methods_of

ACTIVATIONS = {"silu": "silu_and_mul", "gelu": "gelu_and_mul", "gelu_pytorch_tanh": "gelu_tanh_and_mul"}
"""Names as in config.json "hidden_act" -> op."""


class GatedMLP(Layer):
    """down(act(gate(h)) * up(h)) with h = norm(x + residual); with ``post_norm``, the norm of that.

    Parameters: ``norm.*``, ``gate_up.*`` (slots gate, up), ``down.*``, ``post_norm.*``.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        *,
        norm: RMSNorm | LayerNorm | NoNorm | AddOnly,
        act: str = "silu",
        bias: bool = False,
        post_norm: Layer | None = None,
    ) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"hidden_act {act!r} has no gated op; known are {', '.join(ACTIVATIONS)}")
        self.hidden, self.intermediate, self.act = hidden, intermediate, act
        self.norm = norm
        self.gate_up = MergedLinear(hidden, {"gate": intermediate, "up": intermediate}, bias)
        self.down = RowLinear(intermediate, hidden, bias)
        self.post_norm = post_norm

    def bound(self, plan: Plan) -> None:
        self.add_norm, self.gate_up_project, self.down_project = self.norm.add, self.gate_up.forward, self.down.forward
        self.norm_output = self.post_norm.forward if self.post_norm is not None else None
        self.share = self.intermediate // plan.group("tp").size
        self.activate = plan.op(ACTIVATIONS[self.act], size=self.share)
        self.run = fused_over_ranks(plan, "gated_mlp", self) or self.compose

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
            "post_norm": type(self.post_norm).__name__ if self.post_norm is not None else None,
            "bias": self.gate_up.has_bias,
            "linear": methods_of(self.gate_up, self.down),
        }

    def compose(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """The layer in single ops: what ``forward`` means, and does unless a kernel is offered."""
        h, residual = self.add_norm(x, residual)
        y = self.down_project(self.activate(self.gate_up_project(h)))
        return y if self.norm_output is None else self.norm_output(y), residual
