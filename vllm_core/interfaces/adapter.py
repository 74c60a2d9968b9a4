"""The contracts of adapters: how they compute, and where they are found.

Letters: T tokens, A adapters loaded, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from vllm_core.interfaces.quantization import LinearShape
from vllm_core.interfaces.queries import AdapterQuery, ResolverQuery
from vllm_core.interfaces.weights import WeightSource

if TYPE_CHECKING:
    from torch import Tensor, nn


@attrs.frozen(kw_only=True)
class AdapterSource:
    """An adapter on disk. Its name and version are part of the key of cached prefixes."""

    name: str
    path: str
    version: str = ""


class AdapterLayer(Protocol):
    """One linear layer's share: slots for A adapters, made once, filled and emptied in place."""

    def load(self, slot: int, weights: Mapping[str, Tensor], scale: float) -> None:
        """``weights`` by the method's own names ("a" [r, in], "b" [out, r]), this rank's share."""

    def clear(self, slot: int) -> None: ...

    def apply(self, x: Tensor, y: Tensor, slots: Tensor) -> Tensor:
        """y [T, out] plus what the adapters add for x [T, in]; ``slots`` int32 [T], -1: none.

        May work in place. Never synchronises.
        """


class AdapterMethod(Protocol):
    """Made once an engine."""

    def __init__(self, query: AdapterQuery) -> None: ...

    def layer(self, layer: nn.Module, shape: LinearShape, dtype: Any) -> AdapterLayer:
        """Called while the layer is bound."""

    def read(self, config: Mapping[str, Any], weights: WeightSource) -> Mapping[str, Mapping[str, Tensor]]:
        """An adapter's tensors by checkpoint name of the matrix they change.

        ``ValueError`` names the field or tensor that this method cannot do. Nothing is dropped.
        """


class AdapterResolver(Protocol):
    """Made once an engine. ``resolve`` runs in a thread and may use the network."""

    def __init__(self, query: ResolverQuery) -> None: ...

    def resolve(self, name: str) -> AdapterSource | None:
        """The adapter of this name for the base model, or None."""
