"""The attention backend ``native``."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_plugin_cpu_native import library


@attrs.frozen
class Metadata:
    """What the kernels read of a step; ``items`` is kept alive with it."""

    step: library.Step
    items: Tensor  # int32 [N, 3]


class NativeAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim], "NHD", in the model's dtype."""

    def __init__(self, config: AttentionConfig) -> None:
        self._native = library.with_threads()
        self._is_float = config.dtype == torch.float32
        self.v_dim = config.v_dim
        self.shape = library.Shape(
            config.num_heads,
            config.num_kv_heads,
            config.k_dim,
            config.v_dim,
            config.block_size,
            config.scale,
            config.soft_cap or 0.0,
            config.window or 0,
            config.causal,
        )

    def begin_step(self, step: AttentionStep) -> Metadata:
        made = library.Step(
            query_starts=step.query_starts.data_ptr(),
            kv_lens=step.kv_lens.data_ptr(),
            block_table=step.block_table.data_ptr(),
            slots=step.slots.data_ptr(),
            sequences=len(step.query_lens),
            tokens=step.num_tokens,
            table_stride=step.block_table.stride(0),
        )
        made.num_items = self._native.native_items(made, self.shape, None, 0)
        items = torch.empty(made.num_items, 3, dtype=torch.int32)
        made.items = items.data_ptr()
        self._native.native_items(made, self.shape, made.items, made.num_items)
        return Metadata(made, items)

    def pages(self, pages: tuple[Tensor, ...]) -> library.Pages:
        k, v = pages
        return library.Pages(k.data_ptr(), v.data_ptr(), k.stride(0), v.stride(0))

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        where = library.Step(slots=step.slots.data_ptr(), tokens=step.num_tokens)
        k, v = _rows(k), _rows(v)
        self._native.native_write(
            *(self._is_float, k.data_ptr(), v.data_ptr(), k.stride(0), v.stride(0)),
            *(where, self.shape, self.pages(pages)),
        )

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: Metadata,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> Tensor:
        q = _rows(q)
        out = torch.empty(q.shape[0], q.shape[1], self.v_dim, dtype=q.dtype)
        self._native.native_attend(
            *(self._is_float, q.data_ptr(), q.stride(0), metadata.step, self.shape, self.pages(pages)),
            *(None if sinks is None else sinks.data_ptr(), out.data_ptr(), None if lse is None else lse.data_ptr()),
        )
        return out


def _rows(x: Tensor) -> Tensor:
    """x [T, heads, dim] with a token's heads next to each other in memory."""
    heads, dim = x.shape[1:]
    return x if x.stride(2) == 1 and (heads == 1 or x.stride(1) == dim) else x.contiguous()
