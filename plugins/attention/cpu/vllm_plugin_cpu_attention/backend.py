"""The attention backend ``cpu``."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionConfig, AttentionStep
from vllm_core.ops import write_kv
from vllm_plugin_cpu_attention.schedule import schedule
from vllm_plugin_cpu_attention.work import Work


class CpuAttention:
    """``AttentionBackend`` for pages [P, block, heads, dim] at any stride.

    The device is the host here, so lengths are read where they lie and no padding is computed
    for what a step only might have needed.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.scale = config.scale
        self.in_place = config.page_layout == "token_kv"
        self._buffers: dict[str, Tensor] = {}

    def begin_step(self, step: AttentionStep) -> list[Work]:
        return schedule(step, self.config, self.in_place)

    def write(self, k: Tensor, v: Tensor, pages: tuple[Tensor, ...], step: AttentionStep) -> None:
        k_pages, v_pages = pages
        if _one_stride(k_pages):
            k_pages.flatten(0, 1).index_copy_(0, step.slots, k)
            v_pages.flatten(0, 1).index_copy_(0, step.slots, v)
        else:
            write_kv(k, v, k_pages, v_pages, step.slots)

    def attend(
        self,
        q: Tensor,
        pages: tuple[Tensor, ...],
        step: AttentionStep,
        metadata: list[Work],
        sinks: Tensor | None = None,
    ) -> Tensor:
        k_pages, v_pages = pages
        if len(metadata) == 1 and isinstance(metadata[0].rows, slice):
            return metadata[0].run(q, k_pages, v_pages, self.scale, self._gather)
        out = torch.empty(q.shape, dtype=q.dtype)
        for work in metadata:
            out[work.rows] = work.run(q[work.rows], k_pages, v_pages, self.scale, self._gather)
        return out

    def _gather(self, name: str, pages: Tensor, index: Tensor) -> Tensor:
        """pages[index], in a buffer that grows to the largest step and serves every layer."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < len(index):
            buffer = torch.empty((len(index), *pages.shape[1:]), dtype=pages.dtype)
            self._buffers[name] = buffer
        return torch.index_select(pages, 0, index, out=buffer[: len(index)])


def _one_stride(pages: Tensor) -> bool:
    page, token, *_ = pages.stride()
    return page == pages.shape[1] * token
