"""The stack of a model's layers: which of them this rank has, and who looks in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer


def stage_range(layers: int, stage: int, stages: int) -> range:
    """The layers of a pipeline stage: equal shares, the rest to the first stages (the last one has the head)."""
    share, rest = divmod(layers, stages)
    start = stage * share + min(stage, rest)
    return range(start, start + share + (stage < rest))


class LayerStack(Layer):
    """``make(i)`` for i below n; each takes and returns ``(x, residual)``.

    Once bound it holds the layers of this pipeline stage only, under their numbers: parameters
    of layer 3 are ``{path}.3...`` on whichever rank has it.
    """

    def __init__(self, n: int, make: Callable[[int], Layer]) -> None:
        super().__init__()
        self.n = n
        self.owned = range(n)
        self.taps: frozenset[int] = frozenset()
        for i in range(n):
            self.add_module(str(i), make(i))

    def setup(self, plan: Plan) -> None:
        group = plan.group("pp")
        self.owned = stage_range(self.n, group.rank, group.size)
        for i in range(self.n):
            if i not in self.owned and str(i) in self._modules:
                del self._modules[str(i)]

    def bound(self, plan: Plan) -> None:
        self.steps = [(i, self._modules[str(i)].forward) for i in self.owned]  # type: ignore[union-attr]

    def tap(self, layers: Iterable[int]) -> None:
        """From now on keep the hidden states before these layers (n: after the last) in ``batch.taps``."""
        wanted = frozenset(layers)
        if bad := sorted(i for i in wanted if not 0 <= i <= self.n):
            raise ValueError(f"{self.path or 'layers'}: cannot tap before layers {bad}; there are {self.n} layers")
        self.taps = wanted

    def forward(
        self, x: Tensor, batch: Batch, residual: Tensor | None = None, extra: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """x [T, hidden] through the layers of this stage; (x, residual) of the last.

        ``extra[i]`` goes to layer i as a fourth argument (per-layer embeddings, DeepStack features).
        """
        if not self.taps and extra is None:
            for _, step in self.steps:
                x, residual = step(x, residual, batch)
            return x, residual
        for i, step in self.steps:
            self._tap(i, x, residual, batch)
            x, residual = step(x, residual, batch) if extra is None else step(x, residual, batch, extra[i])
        if self.owned.stop == self.n:
            self._tap(self.n, x, residual, batch)
        return x, residual

    def _tap(self, i: int, x: Tensor, residual: Tensor | None, batch: Batch) -> None:
        if i in self.taps:
            # A tensor of its own: layers may overwrite x and residual.
            batch.taps[i] = x.clone() if residual is None else x + residual
