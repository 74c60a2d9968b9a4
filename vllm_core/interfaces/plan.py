"""What a layer is given when it is bound: `bind(plan, path)` asks, the plan answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from vllm_core.interfaces.attention import BoundAttention
    from vllm_core.interfaces.cache import CacheSpec, RecurrentCache
    from vllm_core.interfaces.device import Device
    from vllm_core.interfaces.group import ProcessGroup
    from vllm_core.interfaces.quantization import EmbeddingMethod, LinearMethod, LinearShape
    from vllm_core.interfaces.rope import RotaryTable
    from vllm_core.interfaces.state import BoundState


class Plan(Protocol):
    """The choices of one engine, seen from a layer. A layer never asks for a feature by name."""

    dtype: torch.dtype
    kv_dtype: torch.dtype  # of cached keys and values
    torch_device: torch.device
    device: Device
    max_tokens: int  # the token budget of a step
    max_position: int  # positions run below this
    stage_layers: Sequence[int]  # layers of each pipeline stage; (): the stack shares them out

    def group(self, name: str) -> ProcessGroup:
        """The process group ``"tp"``, ``"pp"``, ... this rank belongs to (of size 1 if not split)."""

    def linear(self, path: str, shape: LinearShape) -> LinearMethod:
        """The method that makes, holds and multiplies this matrix: dense or quantized."""

    def embedding(self, path: str, shape: LinearShape) -> EmbeddingMethod | None:
        """The method of a quantized table of embeddings, or None: it is dense."""

    def op(self, name: str, **shape: int | float | str | bool | None) -> Callable[..., Any]:
        """The best implementation of an op of the table for these fixed shapes."""

    def fused(self, name: str, layer: Any) -> Callable[..., Any] | None:
        """A fused implementation of a whole layer, or None: then the layer composes ops."""

    def rotary(self, head_dim: int, params: dict[str, Any]) -> RotaryTable:
        """The (shared) table of cosines and sines for these rope parameters."""

    def cache(self, name: str, spec: CacheSpec, shared_with: str | None = None) -> None:
        """Declare a cache. Its pages exist only after all layers are bound."""

    def attention(self, path: str, **settings: Any) -> BoundAttention:
        """Declare the attention of a layer (fields of AttentionConfig less what the plan knows)."""

    def state(self, path: str, spec: RecurrentCache) -> BoundState:
        """Declare a recurrent state, its cache included. ``ValueError`` if its tensors cannot lie in a page."""
