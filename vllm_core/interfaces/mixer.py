"""The contract of sequence mixers' kernels: Mamba, linear attention, short convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from vllm_core.interfaces.queries import MixerQuery
from vllm_core.interfaces.state import StateStep

if TYPE_CHECKING:
    from torch import Tensor


class MixerKernel(Protocol):
    """Made once a layer."""

    def __init__(self, query: MixerQuery) -> None: ...

    def __call__(
        self, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], states: Sequence[Tensor], step: StateStep
    ) -> Tensor:
        """Mix T tokens and store their states; returns [T, ...], as the mixer's layer documents.

        inputs    the mixer's inputs, each [T, ...], by the names its layer documents.
        weights   parameters that are no matrix products: decay, convolution, ...
        states    a view [P, ...] for each tensor of the RecurrentCache, in its order: ``BoundState.states``.
        """
