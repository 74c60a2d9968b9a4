"""Norms against float64."""

from __future__ import annotations

import pytest
import torch
from vllm_plugin_cpu_native.limits import machine_limits
from vllm_plugin_cpu_native.norm import native_add_rms_norm, native_rms_norm

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery


def exact(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("size", [1, 16, 77, 576])
def test_norms_are_those_of_float64(dtype, bound, size):
    if why := machine_limits(dtype):
        pytest.skip(why)
    kind = getattr(torch, dtype)
    query = OpQuery(op="rms_norm", dtype=dtype, device=Device("cpu"), shape={"size": size})
    weight = torch.randn(size).to(kind)
    heads = torch.randn(5, 3, 2 * size).to(kind)[..., :size]
    assert (native_rms_norm(query)(heads, weight, 1e-5).double() - exact(heads, weight)).abs().max() < bound * 8
    x, residual = torch.randn(2, 9, size).to(kind)
    total = x + residual
    got, kept = native_add_rms_norm(query)(x.clone(), residual.clone(), weight, 1e-5)
    assert torch.equal(kept, total)
    assert (got.double() - exact(total, weight)).abs().max() < bound * 8
    wide = torch.randn(size)  # float32 in a bfloat16 model
    got = native_rms_norm(query)(x.float(), wide, 1e-5)
    assert got.dtype == torch.float32
    assert (got.double() - exact(x, wide)).abs().max() < 1e-4
