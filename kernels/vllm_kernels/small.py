"""Halves of decoder layers for few tokens: four launches beside attention's own, each reading its weights once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_core.layers.dense import DenseLinear
from vllm_core.layers.norm import OffsetRMSNorm, RMSNorm
from vllm_kernels.small_product import Product, product
from vllm_kernels.small_tiling import shape_limits


def small_attention(query: OpQuery, layer: Any) -> SmallAttention | None:
    """For a bound ``DecoderAttention``; None if a part of it is not made here."""
    norm = _norm_dtype(layer.norm)
    if norm is None or not (_dense(layer.qkv) and _dense(layer.out)):
        return None
    if (qkv := _product(query, layer.qkv, norm)) is None or (out := _product(query, layer.out)) is None:
        return None
    return SmallAttention(layer, qkv, out)


def small_mlp(query: OpQuery, layer: Any) -> SmallMLP | None:
    """For a bound ``GatedMLP``; None if a part of it is not made here."""
    norm = _norm_dtype(layer.norm)
    if norm is None or not (_dense(layer.gate_up) and _dense(layer.down)):
        return None
    gate_up = _product(query, layer.gate_up, norm, layer.act)
    if gate_up is None or (down := _product(query, layer.down)) is None:
        return None
    return SmallMLP(layer, gate_up, down)


class NormedProduct:
    """(x, residual) -> (product of the norm of their sum, sum): a norm and the linear layer behind it."""

    def __init__(self, norm: Any, linear: Any, compiled: Product) -> None:
        self._norm, self._linear, self._product = norm, linear._parameters, compiled

    def __call__(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x = _plain(x)
        total = None
        if residual is not None:
            # Every block reads both while one writes: the sum needs a place of its own.
            residual, total = _plain(residual), torch.empty_like(x)
        norm, linear = self._norm, self._linear
        y = self._product(
            x, linear["weight"], linear.get("bias"), residual=residual, scale=_scale(norm), eps=norm.eps, total=total
        )
        return y, x if total is None else total


class Output:
    """The linear layer at the end of a half, added up over ranks, and the norm of the output if there is one."""

    def __init__(self, linear: Any, compiled: Product, post_norm: Any) -> None:
        self._linear, self._product, self._post_norm = linear._parameters, compiled, post_norm
        self._reduce = linear.group.all_reduce if linear.group.size > 1 else None

    def __call__(self, x: Tensor) -> Tensor:
        y = self._product(_plain(x), self._linear["weight"], self._linear.get("bias"))
        if self._reduce is not None:
            y = self._reduce(y)
        return y if self._post_norm is None else self._post_norm(y)


class SmallAttention:
    """See ``vllm_kernels.layers.SmallAttention``."""

    def __init__(self, layer: Any, qkv: Product, out: Product) -> None:
        self.most = min(qkv.most, out.most)
        self.project = NormedProduct(layer.norm, layer.qkv, qkv)
        self._output = Output(layer.out, out, layer.norm_output)

    def output(self, o: Tensor) -> Tensor:
        return self._output(o.flatten(1))


class SmallMLP:
    """See ``vllm_kernels.layers.SmallMLP``."""

    def __init__(self, layer: Any, gate_up: Product, down: Product) -> None:
        self.most = min(gate_up.most, down.most)
        self._gate_up = NormedProduct(layer.norm, layer.gate_up, gate_up)
        self._down = Output(layer.down, down, layer.norm_output)

    def __call__(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        h, residual = self._gate_up(x, residual)
        return self._down(h), residual


def _dense(linear: Any) -> bool:
    method = linear.method
    return type(method) is DenseLinear and method.pack is None


def _norm_dtype(norm: Any) -> str | None:
    """Of what the norm multiplies by; None: this norm is not made here."""
    if type(norm) not in (RMSNorm, OffsetRMSNorm):
        return None
    return str(_scale(norm).dtype).removeprefix("torch.")


def _scale(norm: Any) -> Tensor:
    return norm.scale if type(norm) is OffsetRMSNorm else norm._parameters["weight"]


def _product(query: OpQuery, linear: Any, norm: str = "", act: str = "") -> Product | None:
    weight = linear._parameters["weight"]
    rows, in_size = weight.shape
    out_size = rows // 2 if act else rows
    if shape_limits(in_size, out_size, query.dtype) or weight.data_ptr() % 16 or not weight.is_contiguous():
        return None
    made = product(in_size, out_size, query.dtype, norm, act, weight.device.index)
    return made if made.most else None


def _plain(x: Tensor) -> Tensor:
    return x if x.is_contiguous() and not x.data_ptr() % 16 else x.clone(memory_format=torch.contiguous_format)
