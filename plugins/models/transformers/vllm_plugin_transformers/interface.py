"""The name under which transformers' attention modules find our paged cache, and its masks find nothing to build.

transformers looks its attention function up by ``config._attn_implementation``; see "Attention interface" in its
documentation (docs/source/en/attention_interface.md). Letters: T tokens of a step, H query heads, KV key/value
heads, K and V their dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import attrs
from torch import Tensor, nn

from vllm_core.interfaces.attention import BoundAttention
from vllm_core.interfaces.batch import Batch

NAME = "vllm_core"


class Listener(Protocol):
    """Hears of calls instead of the cache, while a model is followed without weights."""

    def attention(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, settings: dict[str, Any]
    ) -> Tensor: ...

    def mask(self, settings: dict[str, Any]) -> Any: ...


_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@attrs.define
class Running:
    """What the attention modules of one model share."""

    batch: Batch | None = None  # of the step that runs


@attrs.frozen
class Slot:
    """Kept by an attention module of transformers: its part of the paged cache."""

    attend: BoundAttention
    running: Running


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any
) -> tuple[Tensor, None]:
    """query [1, H, T, K], key [1, KV, T, K], value [1, KV, T, V] -> [1, T, H, V]; no attention weights."""
    listener = _LISTENER.get()
    if listener is not None:
        return listener.attention(module, query, key, value, attention_mask, settings), None
    slot: Slot = module.paged_slot  # type: ignore[assignment]
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    return slot.attend(q, k, v, slot.running.batch, settings.get("s_aux")).unsqueeze(0), None


def mask(**settings: Any) -> Any:
    """While the engine runs there are no masks: pages and lengths say what a query sees."""
    listener = _LISTENER.get()
    return None if listener is None else listener.mask(settings)


def register() -> None:
    """Make the name known to transformers. Once is enough, more does no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
