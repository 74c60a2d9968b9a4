"""Layers of the core as records that the kernels read. Addresses stay valid: parameters are refilled in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vllm_plugin_cpu_native import library


def norm_record(norm: Any) -> library.Norm:
    """An `RMSNorm`, or none. One that keeps a float32 ``scale`` computes with that instead of its weight."""
    if norm is None:
        return library.Norm(None, 0, 0.0)
    weight: Tensor = getattr(norm, "scale", None)
    if weight is None:
        weight = norm.weight
    return library.Norm(weight.data_ptr(), weight.dtype == torch.float32, norm.eps)


def linear_record(linear: Any) -> library.Linear:
    weight, bias = linear.weight, getattr(linear, "bias", None)
    out, inner = weight.shape
    return library.Linear(weight.data_ptr(), None if bias is None else bias.data_ptr(), out, inner)


def whole_and_plain(*linears: Any) -> bool:
    """Whether these matrices are whole on this rank and lie as they were stored: neither packed nor quantized."""
    return all(
        getattr(linear.method, "pack", "not dense") is None and getattr(linear, "group", _ALONE).size == 1
        for linear in linears
    )


class _ALONE:
    size = 1
