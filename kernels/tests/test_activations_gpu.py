"""Activations on the GPU against float64."""

from __future__ import annotations

import math

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel

pytestmark = pytest.mark.usefixtures("gpu")
DTYPES = {"bfloat16": 4e-3, "float16": 5e-4, "float32": 2e-6}  # allowed error

ACTS = {
    "silu": lambda g: g / (1 + (-g).exp()),
    "gelu": lambda g: g * 0.5 * (1 + torch.erf(g / math.sqrt(2))),
    "gelu_tanh": lambda g: 0.5 * g * (1 + torch.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3))),
    "relu": lambda g: g * (g > 0),
}


def error(got, want):
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
def test_gates_multiply_the_activated_first_half_with_the_second(dtype, act):
    for size in (3072, 14336, 72, 17):
        gate = kernel(f"{act}_and_mul", dtype, size=size)
        for tokens in (0, 1, 3, 513):
            x = (3 * torch.randn(tokens, 2 * size)).to(getattr(torch, dtype))
            y = gate(x)
            assert y.shape == (tokens, size)
            if tokens:
                assert error(y, ACTS[act](x[:, :size].double()) * x[:, size:].double()) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ["gelu", "gelu_tanh", "relu"])
def test_activations_without_a_gate_keep_the_size(dtype, act):
    for size in (3072, 72, 17):
        run = kernel(act, dtype, size=size)
        for tokens in (1, 3, 513):
            x = (3 * torch.randn(tokens, size)).to(getattr(torch, dtype))
            assert error(run(x), ACTS[act](x.double())) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
def test_large_numbers_make_no_nan(dtype, act):
    x = torch.tensor([[-3e4, -100, -88, -20, 0, 20, 88, 100, *[1.0] * 8]]).to(getattr(torch, dtype))
    got = kernel(f"{act}_and_mul", dtype, size=8)(x)
    assert torch.allclose(got.double(), torch.nn.functional.relu(x[:, :8].double()), atol=1e-6)
    assert kernel("relu", dtype, size=16)(x / 0).isnan().any(), "0 / 0 stays what it is"


def test_parts_of_a_wider_tensor_are_read_where_they_lie():
    wide = torch.randn(5, 300, dtype=torch.bfloat16)
    for x in (wide[:, 1:145], wide[:, :144], wide[::2, 8:152]):
        assert error(kernel("silu_and_mul", size=72)(x), ACTS["silu"](x[:, :72].double()) * x[:, 72:].double()) < 4e-3
