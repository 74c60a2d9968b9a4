"""Linear layers, split over ranks by columns (outputs) or rows (inputs) of y = x W^T + b."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vllm_core.interfaces.plan import Plan
from vllm_core.interfaces.quantization import LinearMethod, LinearShape
from vllm_core.layers.params import FilledLayer
from vllm_core.layers.shards import Shard, split, whole


class Linear(FilledLayer):
    """What the split variants share: the plan's method makes the parameters and multiplies.

    A subclass says in ``shards`` which inputs and which outputs of each slot this rank holds.
    """

    method: LinearMethod

    def __init__(self, in_size: int, out_sizes: dict[str, int], bias: bool = False) -> None:
        super().__init__()
        self.in_size = in_size
        self.out_sizes = out_sizes  # slot -> elements, over all ranks
        self.has_bias = bias

    def shards(self, plan: Plan) -> tuple[Shard, dict[str, Shard]]:
        """(inputs, slot -> outputs) of this rank."""
        raise TypeError(f"{type(self).__name__} does not say how it is split: use ColumnLinear or RowLinear")

    def setup(self, plan: Plan) -> None:
        inputs, outputs = self.shards(plan)
        shape = LinearShape(
            in_size=inputs.size,
            out_sizes=tuple(s.size for s in outputs.values()),
            slots=tuple(outputs),
            bias=self.has_bias,
        )
        self.method = plan.linear(self.path, shape)
        if callable(ask := getattr(self.method, "ask", None)):
            ask(plan, shape)
        self.make_params(plan, self.method.params(shape, plan.dtype), inputs, outputs)
        self.apply_linear = self.method.apply

    def forward(self, x: Tensor) -> Any:
        """x [T, in_size of this rank] -> [T, sum of this rank's outputs]."""
        return self.apply_linear(self, x)

    def loaded(self) -> None:
        self.method.loaded(self)


class ColumnLinear(Linear):
    """Outputs split over ranks, every rank sees the whole input."""

    def __init__(self, in_size: int, out_size: int, bias: bool = False) -> None:
        super().__init__(in_size, {"": out_size}, bias)

    def shards(self, plan: Plan) -> tuple[Shard, dict[str, Shard]]:
        group = plan.group("tp")
        return whole(self.in_size), {
            slot: split(size, group, f"{self.path}: output {slot}".rstrip()) for slot, size in self.out_sizes.items()
        }


class MergedLinear(ColumnLinear):
    """Several matrices over one input in one product: ``MergedLinear(hidden, {"gate": n, "up": n})``."""

    def __init__(self, in_size: int, out_sizes: dict[str, int], bias: bool = False) -> None:
        Linear.__init__(self, in_size, out_sizes, bias)


class RowLinear(Linear):
    """Inputs split over ranks; the ranks' products are added up."""

    def __init__(self, in_size: int, out_size: int, bias: bool = False) -> None:
        super().__init__(in_size, {"": out_size}, bias)

    def shards(self, plan: Plan) -> tuple[Shard, dict[str, Shard]]:
        self.group = plan.group("tp")
        return split(self.in_size, self.group, f"{self.path}: input"), {"": whole(self.out_sizes[""])}

    def forward(self, x: Tensor) -> Tensor:
        y = self.apply_linear(self, x)
        return self.group.all_reduce(y) if self.group.size > 1 else y

    def loaded(self) -> None:
        if self.has_bias and self.group.rank > 0:
            # Every rank adds its bias before the sum, so that one of them has the value.
            self._parameters["bias"].zero_()  # type: ignore[union-attr]
        super().loaded()
