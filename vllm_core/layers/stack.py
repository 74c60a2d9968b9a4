"""The stack of a model's layers: which of them this rank has, and who looks in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.decoder_layer import DecoderLayer
from vllm_core.layers.linear import Linear
from vllm_core.layers.stages import stage_ranges


class LayerStack(Layer):
    """``make(i)`` for i below n; each takes and returns ``(x, residual)``.

    Once bound it holds the layers of this pipeline stage only, under their numbers: parameters
    of layer 3 are ``{path}.3...`` on whichever rank has it. What goes from stage to stage is one
    tensor, ``x + residual``: the runner sends it.
    """

    def __init__(self, n: int, make: Callable[[int], Layer]) -> None:
        super().__init__()
        self.n = n
        self.owned = range(n)
        self.behind = 0  # elements of what follows the stack: the head's matrix
        self.taps: frozenset[int] = frozenset()
        for i in range(n):
            self.add_module(str(i), make(i))

    def setup(self, plan: Plan) -> None:
        group = plan.group("pp")
        if group.size == 1:
            return
        costs = [_elements(self._modules[str(i)]) for i in range(self.n)]
        self.owned = stage_ranges(costs, group.size, self.behind, plan.stage_layers)[group.rank]
        self.elsewhere = [str(i) for i in range(self.n) if i not in self.owned]
        for name in self.elsewhere:
            del self._modules[name]

    def bound(self, plan: Plan) -> None:
        layers = [self._modules[str(i)] for i in self.owned]
        self.steps = [(i, layer.forward) for i, layer in zip(self.owned, layers, strict=True)]  # type: ignore[union-attr]
        self.equal = _equal_shapes(layers)
        # Else sums over ranks come between, or nobody was asked for a kernel of so many layers.
        alone = plan.group("tp").size == 1 and len(self.owned) == self.n
        self.run = (plan.fused("decoder_stack", self) if self.equal and alone else None) or self.compose

    def fused_shape(self) -> dict[str, int | float | str | bool | None]:
        """What a kernel that is all layers is chosen by: how many, and their halves' shapes. Only if all are equal."""
        attention, mlp = self.equal[0]
        return {
            "layers": len(self.owned),
            **{f"attention.{name}": value for name, value in attention.items()},
            **{f"mlp.{name}": value for name, value in mlp.items()},
        }

    def tap(self, layers: Iterable[int]) -> None:
        """From now on keep the hidden states before these layers (n: after the last) in ``batch.taps``."""
        wanted = frozenset(layers)
        if bad := sorted(i for i in wanted if not 0 <= i <= self.n):
            raise ValueError(f"{self.path or 'layers'}: cannot tap before layers {bad}; there are {self.n} layers")
        here = {*self.owned, self.n} if self.owned.stop == self.n else {*self.owned}
        if bad := sorted(wanted - here):
            raise ValueError(
                f"{self.path or 'layers'}: cannot tap before layers {bad}: this pipeline stage has layers"
                f" {self.owned.start} to {self.owned.stop - 1}, and hidden states of others are not brought here.\n"
                "  instead --pipeline-parallel-size 1"
            )
        self.taps = wanted

    def forward(
        self, x: Tensor, batch: Batch, residual: Tensor | None = None, extra: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """x [T, hidden] through the layers of this stage; (x, residual) of the last.

        ``extra[i]`` goes to layer i as a fourth argument (per-layer embeddings, DeepStack features).
        """
        if not self.taps and extra is None:
            return self.run(x, residual, batch)
        if extra is not None and len(self.owned) < self.n:
            raise ValueError(
                f"{self.path or 'layers'}: inputs of single layers do not go from pipeline stage to stage.\n"
                "  instead --pipeline-parallel-size 1"
            )
        for i, step in self.steps:
            self._tap(i, x, residual, batch)
            x, residual = step(x, residual, batch) if extra is None else step(x, residual, batch, extra[i])
        if self.owned.stop == self.n:
            self._tap(self.n, x, residual, batch)
        return x, residual

    def compose(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The layers one after the other: what ``forward`` means, and does unless a kernel is offered."""
        for _, step in self.steps:
            x, residual = step(x, residual, batch)
        return x, residual

    def _tap(self, i: int, x: Tensor, residual: Tensor | None, batch: Batch) -> None:
        if i in self.taps:
            # A tensor of its own: layers may overwrite x and residual.
            batch.taps[i] = x.clone() if residual is None else x + residual


def _elements(layer: Any) -> int:
    """Of all its matrices, over all ranks: what a step of few tokens spends its time on."""
    return sum(m.in_size * sum(m.out_sizes.values()) for m in layer.modules() if isinstance(m, Linear))


def _equal_shapes(layers: Sequence[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The fused shapes of (attention, mlp), one entry, if all layers are `DecoderLayer`s of the same two; else none."""
    # A subclass may do something else.
    if not layers or not all(type(layer) is DecoderLayer for layer in layers):
        return []
    halves = [(layer.attention, layer.mlp) for layer in layers]
    if not all(hasattr(half, "fused_shape") for pair in halves for half in pair):
        return []
    shapes = [(attention.fused_shape(), mlp.fused_shape()) for attention, mlp in halves]
    return shapes[:1] if all(shape == shapes[0] for shape in shapes) else []
