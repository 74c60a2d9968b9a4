"""A stack's layers as the kernel reads them: addresses of weights and pages, a record a layer."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

FEWEST_TOKENS = 16  # of a page: no tile of keys lies in two


@attrs.frozen(kw_only=True)
class PageStrides:
    """Of keys and values, in elements; ``block_bits``: a page has 2**block_bits tokens."""

    block_bits: int
    strides: tuple[int, ...]  # page, token, head of keys; then of values


def readable(decoders: list[Any]) -> bool:
    """Whether weights lie as they were stored, whole on this rank, and layers differ in nothing but weights."""
    linears = [linear for d in decoders for linear in (d.attention.qkv, d.attention.out, d.mlp.gate_up, d.mlp.down)]
    if any(getattr(linear.method, "pack", None) is not None for linear in linears):
        return False
    if any(half.group.size > 1 for d in decoders for half in (d.attention.out, d.mlp.down)):
        return False
    return len({_settings(d) for d in decoders}) == 1


def _settings(decoder: Any) -> tuple[Any, ...]:
    attention, mlp = decoder.attention, decoder.mlp
    return (
        attention.norm.eps,
        mlp.norm.eps,
        getattr(attention.q_norm, "eps", None),
        getattr(attention.k_norm, "eps", None),
        attention.attend.scale,
        attention.attend.cache_of,
        id(attention.rotary.table) if attention.rotary is not None else None,
    )


def page_strides(decoders: list[Any]) -> PageStrides | None:
    """How all layers' pages lie; None: in a way that the kernel does not read."""
    bounds = [d.attention.attend.attend for d in decoders]
    config = getattr(bounds[0].backend, "config", None)
    if config is None or config.page_layout not in ("NHD", "HND") or config.kv_dtype != torch.bfloat16:
        return None
    if config.block_size < FEWEST_TOKENS or config.block_size & (config.block_size - 1):
        return None
    token, head = (1, 2) if config.page_layout == "NHD" else (2, 1)
    found = {
        tuple(stride for pages in bound.pages for stride in (pages.stride(0), pages.stride(token), pages.stride(head)))
        for bound in bounds
    }
    tensors = [pages for bound in bounds for pages in bound.pages]
    aligned = all(t.stride(-1) == 1 and t.data_ptr() % 16 == 0 and t.dtype == torch.bfloat16 for t in tensors)
    if len(found) > 1 or not aligned or any(stride % 8 for stride in next(iter(found))):
        return None
    return PageStrides(block_bits=config.block_size.bit_length() - 1, strides=next(iter(found)))


def records(decoders: list[Any], device: torch.device) -> Tensor:
    """int64 [layers, 14]: ``LayerRecord`` of stack_shape.cuh."""
    rows = [_record(d.attention, d.mlp) for d in decoders]
    return torch.tensor(rows, dtype=torch.int64).to(device)


def _record(attention: Any, mlp: Any) -> list[int]:
    keys, values = attention.attend.attend.pages
    return [
        *(_address(attention.norm, "weight"), *_linear(attention.qkv)),
        *(_address(attention.q_norm, "weight"), _address(attention.k_norm, "weight")),
        *_linear(attention.out),
        *(_address(mlp.norm, "weight"), *_linear(mlp.gate_up), *_linear(mlp.down)),
        *(keys.data_ptr(), values.data_ptr()),
    ]


def _linear(layer: Any) -> tuple[int, int]:
    return _address(layer, "weight"), _address(layer, "bias")


def _address(layer: Any, name: str) -> int:
    """0: there is none."""
    tensor = layer._parameters.get(name) if layer is not None else None
    return tensor.data_ptr() if tensor is not None else 0
