"""Norms on the GPU against float64."""

from __future__ import annotations

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel

pytestmark = pytest.mark.usefixtures("gpu")
DTYPES = {"bfloat16": 4e-3, "float16": 5e-4, "float32": 2e-6}  # allowed error
SIZES = [1024, 4096, 2304, 128, 16384, 20480, 100, 77, 7000]
TOKENS = [1, 3, 257]
# Each shape of a launch in one dtype, and some in the others.
CASES = [("bfloat16", size) for size in SIZES] + [
    (d, size) for d in ("float16", "float32") for size in (1024, 77, 20480)
]


def rand(*shape, dtype):
    return torch.randn(shape).to(getattr(torch, dtype))


def error(got, want):
    """||got - want|| / ||want||; of something that is not finite, that."""
    return float((got.double() - want).norm() / want.norm())


def rms(x, weight, eps=1e-5):
    return weight.double() * x.double() / (x.double().square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("weight", ["same", "float32"])
@pytest.mark.parametrize(("dtype", "size"), CASES)
def test_rms_norms_divide_by_the_root_of_the_mean_square(dtype, size, weight):
    asked = {"size": size} | ({"weight": "float32"} if weight == "float32" else {})
    for tokens in TOKENS:
        x, residual = rand(tokens, size, dtype=dtype), rand(tokens, size, dtype=dtype)
        w = rand(size, dtype=dtype if weight == "same" else weight)
        assert error(kernel("rms_norm", dtype, **asked)(x, w, 1e-5), rms(x, w)) < DTYPES[dtype]
        total = (x.double() + residual.double()).to(x.dtype)
        normed, summed = kernel("add_rms_norm", dtype, **asked)(x, residual, w, 1e-5)
        assert torch.equal(summed, total)
        assert error(normed, rms(total, w)) < DTYPES[dtype]


@pytest.mark.parametrize(("dtype", "size"), CASES)
def test_layer_norms_take_off_the_mean(dtype, size):
    for tokens in TOKENS:
        x, residual, w, b = (rand(n, size, dtype=dtype) for n in (tokens, tokens, 1, 1))
        x, w, b = x + 3, w[0], b[0]
        y = x.double() - x.double().mean(-1, keepdim=True)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        norm = kernel("layer_norm", dtype, size=size)
        for weight, bias in ((w, b), (w, None), (None, None)):
            want = y if weight is None else y * weight.double()
            want = want if bias is None else want + bias.double()
            assert error(norm(x, weight, bias, 1e-5), want) < DTYPES[dtype]
        total = (x.double() + residual.double()).to(x.dtype)
        want = torch.nn.functional.layer_norm(total.double(), (size,), w.double(), b.double(), 1e-5)
        normed, summed = kernel("add_layer_norm", dtype, size=size)(x, residual, w, b, 1e-5)
        assert torch.equal(summed, total)
        assert error(normed, want) < DTYPES[dtype]


def test_rows_may_lie_at_any_stride():
    wide, w = rand(5, 6, 128, dtype="bfloat16"), rand(128, dtype="bfloat16")
    norm = kernel("rms_norm", size=128)
    views = [wide[:, 1:4], wide[:, 2], wide[::2, 0], wide.transpose(0, 1)]
    flat = rand(3, 130, dtype="bfloat16")
    for x in (*views, flat[:, 1:129], flat[:, 2:]):  # the last two begin where 16 bytes cannot be read at once
        assert error(norm(x, w, 1e-5), rms(x, w)) < 4e-3


@pytest.mark.parametrize("size", [1024, 100, 20480])
def test_a_row_does_not_depend_on_the_rows_beside_it(size):
    x, r, w = (rand(n, size, dtype="bfloat16") for n in (300, 300, 1))
    alone, both, layer = (kernel(name, size=size) for name in ("rms_norm", "add_rms_norm", "layer_norm"))
    whole = alone(x, w[0], 1e-5), layer(x, w[0], None, 1e-5), both(x.clone(), r.clone(), w[0], 1e-5)[0]
    for at in (slice(0, 1), slice(7, 9), slice(299, 300)):
        part = x[at].clone(), r[at].clone()
        assert torch.equal(alone(part[0], w[0], 1e-5), whole[0][at])
        assert torch.equal(layer(part[0], w[0], None, 1e-5), whole[1][at])
        assert torch.equal(both(*part, w[0], 1e-5)[0], whole[2][at])


def test_a_row_with_a_nan_spoils_no_other():
    x, w = rand(9, 1024, dtype="bfloat16"), rand(1024, dtype="bfloat16")
    x[4, 1000] = float("nan")
    y = kernel("rms_norm", size=1024)(x, w, 1e-5)
    assert y.isnan().any(1).tolist() == [i == 4 for i in range(9)]


def test_no_rows_are_no_launch():
    x, w = rand(0, 1024, dtype="bfloat16"), rand(1024, dtype="bfloat16")
    assert kernel("rms_norm", size=1024)(x, w, 1e-5).shape == (0, 1024)
