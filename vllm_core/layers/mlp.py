"""A feed-forward without a gate, as in the first transformers: norm and two matrices as one layer."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.linear import ColumnLinear, RowLinear
from vllm_core.layers.norm import AddOnly, LayerNorm, NoNorm, RMSNorm

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Names as in config.json "hidden_act" -> op."""


class MLP(Layer):
    """down(act(up(h))) with h = norm(x + residual).

    Parameters: ``norm.*``, ``up.*``, ``down.*``.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        *,
        norm: RMSNorm | LayerNorm | NoNorm | AddOnly,
        act: str = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"hidden_act {act!r} has no op; known are {', '.join(ACTIVATIONS)}")
        self.act = act
        self.norm = norm
        self.up = ColumnLinear(hidden, intermediate, bias)
        self.down = RowLinear(intermediate, hidden, bias)

    def bound(self, plan: Plan) -> None:
        self.add_norm, self.up_project, self.down_project = self.norm.add, self.up.forward, self.down.forward
        self.activate = plan.op(ACTIVATIONS[self.act], size=self.down.in_size // plan.group("tp").size)

    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """x, residual [T, hidden] -> (output, residual), both [T, hidden]; the output is not added yet."""
        h, residual = self.add_norm(x, residual)
        return self.down_project(self.activate(self.up_project(h))), residual
