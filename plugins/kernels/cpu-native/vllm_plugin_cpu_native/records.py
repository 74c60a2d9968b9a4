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
    """A matrix that `readable` accepts."""
    scaled = getattr(linear.method, "scaled", None)
    weight, scales = scaled(linear) if scaled is not None else (linear.weight, None)
    out, inner = weight.shape
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in (scales, getattr(linear, "bias", None)))
    return library.Linear(weight.data_ptr(), *addresses, out, inner)


def readable(*linears: Any) -> bool:
    """Whether these matrices are whole on this rank and lie as they were stored or scaled, not packed by a kernel."""
    return all(_lies_open(linear.method) and getattr(linear, "group", _Alone).size == 1 for linear in linears)


def _lies_open(method: Any) -> bool:
    return hasattr(method, "scaled") or getattr(method, "pack", "neither dense nor scaled") is None


class _Alone:
    """The group of a matrix whose outputs, if anything, are split: nothing is added up over ranks."""

    size = 1
