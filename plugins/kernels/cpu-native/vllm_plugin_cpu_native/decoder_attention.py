"""The first half of a decoder layer as one kernel."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_cpu_native import library
from vllm_plugin_cpu_native.attention import NativeAttention
from vllm_plugin_cpu_native.records import linear_record, norm_record, readable

Half = Callable[[Tensor, Tensor | None, Batch], tuple[Tensor, Tensor]]


def native_decoder_attention(query: OpQuery, layer: Any) -> Half | None:
    """``FusedLayer`` for ``DecoderAttention``."""
    if not readable(layer.qkv, layer.out):
        return None
    return NativeDecoderAttention(layer, query.dtype == "float32")


class NativeDecoderAttention:
    """Norm to output projection in one call; composes the layer's ops if its attention is another backend's."""

    def __init__(self, layer: Any, is_float: bool) -> None:
        self._layer, self._is_float = layer, is_float
        self._run = library.with_threads().native_decoder_attention
        self._record = library.AttentionLayer(
            hidden=layer.hidden,
            norm=norm_record(layer.norm),
            q_norm=norm_record(layer.q_norm),
            k_norm=norm_record(layer.k_norm),
            post_norm=norm_record(layer.post_norm),
            qkv=linear_record(layer.qkv),
            out=linear_record(layer.out),
            rotary_half=layer.rotary.table.rotary_dim // 2 if layer.rotary is not None else 0,
            interleaved=layer.rotary is not None and layer.rotary.table.interleaved,
        )
        self._pages: tuple[Any, library.Pages | None] = (None, None)  # those of the last call, and their record

    def __call__(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        bound, layer = self._layer.attend.attend, self._layer
        if bound.pages is not self._pages[0]:
            self._attach(bound)
        pages = self._pages[1]
        if pages is None:
            return layer.compose(x, residual, batch)
        cos, sin = layer.rotary.rows(batch) if layer.rotary is not None else (None, None)
        first = residual is None
        out, residual = (torch.empty_like(x), x) if residual is None else (x, residual)
        _, metadata = bound.of(batch)
        self._run(
            *(self._is_float, byref(self._record), byref(metadata.step), byref(pages)),
            *(out.data_ptr(), residual.data_ptr(), first),
            *((None, None) if cos is None else (cos.data_ptr(), sin.data_ptr())),
        )
        return out, residual

    def _attach(self, bound: Any) -> None:
        """Pages were made, or made anew."""
        if not isinstance(bound.backend, NativeAttention):
            self._pages = bound.pages, None
            return
        self._record.shape = bound.backend.shape
        sinks = self._layer.attend._parameters.get("sinks")
        self._record.sinks = None if sinks is None else sinks.data_ptr()
        self._pages = bound.pages, bound.backend.pages(bound.pages)
