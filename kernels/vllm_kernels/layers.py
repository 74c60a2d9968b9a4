"""Halves of decoder layers: the layer's own products, and between them as few launches as there can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.qk import QKWrite
from vllm_kernels.small import small_attention, small_mlp

Half = Callable[[Tensor, Tensor | None, Batch], tuple[Tensor, Tensor]]


class SmallAttention(Protocol):
    """Kernels for the products of `DecoderAttention` with few tokens, with what stands beside them."""

    most: int  # tokens

    def project(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(qkv [T, (H + 2 KV) D], residual + x); both inputs may be overwritten, but x not where it is the residual."""

    def output(self, o: Tensor) -> Tensor:
        """o [T, H, D] -> [T, hidden], ``post_norm`` included."""


class SmallMLP(Protocol):
    """`GatedMLP` with few tokens, ``post_norm`` included."""

    most: int

    def __call__(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]: ...


def decoder_attention(query: OpQuery, layer: Any) -> Half:
    """``FusedLayer`` for ``DecoderAttention``."""
    return FusedAttention(layer, QKWrite.of_layer(query, layer), small_attention(query, layer))


def gated_mlp(query: OpQuery, layer: Any) -> Half | None:
    """``FusedLayer`` for ``GatedMLP``: beyond few tokens the layer's own ops are as good."""
    small: SmallMLP | None = small_mlp(query, layer)
    if small is None:
        return None
    most, compose = small.most, layer.compose

    def run(x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        return small(x, residual) if x.shape[0] <= most else compose(x, residual, batch)

    return run


class FusedAttention:
    """Residual and norm, QKV, one kernel from there to the pages, attention, output."""

    def __init__(self, layer: Any, write: QKWrite, small: SmallAttention | None) -> None:
        self._layer, self._write, self._small = layer, write, small
        self._most = 0 if small is None else small.most
        self._bound = layer.attend.attend
        self._sinks = layer.attend._parameters.get("sinks")
        self._rotary = layer.rotary
        self._pages: tuple[Any, bool] = (None, False)  # those of the last call, and whether they are written here

    def __call__(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        bound, layer = self._bound, self._layer
        if bound.pages is not self._pages[0]:
            self._pages = bound.pages, self._write.fits(bound.pages, bound.layout)
        if not self._pages[1]:
            return layer.compose(x, residual, batch)
        few = x.shape[0] <= self._most
        if few:
            qkv, residual = self._small.project(x, residual)  # type: ignore[union-attr]
        else:
            h, residual = layer.add_norm(x, residual)
            qkv = layer.project(h)
        step, metadata = bound.of(batch)
        q = self._write(qkv, *self._angles(batch), *bound.pages, step.slots, bound.layout)
        o = bound.backend.attend(q, bound.pages, step, metadata, self._sinks)
        if few:
            return self._small.output(o), residual  # type: ignore[union-attr]
        o = layer.out_project(o.flatten(1))
        return o if layer.norm_output is None else layer.norm_output(o), residual

    def _angles(self, batch: Batch) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """cos, sin, and the row of them that each token reads; None: row t."""
        rotary = self._rotary
        if rotary is None:
            return None, None, None
        if batch.positions.dim() == 1 and rotary.key not in batch.shared:
            return rotary.table.cos, rotary.table.sin, batch.positions
        # Positions with several axes, or somebody has looked the rows up already.
        return *rotary.rows(batch), None
