"""Each op's reference against its definition, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core import ops
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.ops.table import LAYER_OPS, OPS, op, reference_kernel
from vllm_core.plugin import load_target

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SIZES = st.integers(0, 9)  # tokens, none included
SEEDS = st.integers(0, 2**20)
some = settings(max_examples=40, deadline=None)


def rand(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype)


def assert_close(got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype) -> None:
    """``want`` is float64; one rounding to dtype and float32 sums are allowed."""
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@some
@given(tokens=SIZES, size=st.integers(1, 300), dtype=DTYPES, eps=st.sampled_from([1e-6, 1e-5, 0.1]), seed=SEEDS)
def test_rms_norm_divides_by_the_root_of_the_mean_square(tokens, size, dtype, eps, seed):
    torch.manual_seed(seed)
    x, w = rand(tokens, size, dtype=dtype), rand(size, dtype=dtype)
    root = (x.double().square().mean(-1, keepdim=True) + eps).sqrt()
    assert_close(ops.rms_norm(x, w, eps), w.double() * x.double() / root, dtype)


@some
@given(tokens=SIZES, size=st.integers(1, 300), dtype=DTYPES, seed=SEEDS)
def test_add_rms_norm_normalises_the_rounded_sum_and_returns_it(tokens, size, dtype, seed):
    torch.manual_seed(seed)
    x, r, w = rand(tokens, size, dtype=dtype), rand(tokens, size, dtype=dtype), rand(size, dtype=dtype)
    total = (x.double() + r.double()).to(dtype)
    want = total.double() * w.double() / (total.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    normed, summed = ops.add_rms_norm(x, r, w, 1e-5)
    assert torch.equal(summed, total)
    assert_close(normed, want, dtype)


@some
@given(tokens=SIZES, size=st.integers(1, 300), dtype=DTYPES, seed=SEEDS)
def test_a_float32_weight_multiplies_before_the_rounding(tokens, size, dtype, seed):
    torch.manual_seed(seed)
    x, r, w = rand(tokens, size, dtype=dtype), rand(tokens, size, dtype=dtype), rand(size)
    want = x.double() * w.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(ops.rms_norm(x, w, 1e-5), want, dtype)
    exact = torch.nn.functional.rms_norm(x.float(), (size,), w, 1e-5).to(dtype)
    assert torch.equal(ops.rms_norm(x, w, 1e-5), exact)
    normed, total = ops.add_rms_norm(x.clone(), r.clone(), w, 1e-5)
    assert torch.equal(total, x + r)
    assert torch.equal(normed, ops.rms_norm(total, w, 1e-5))


@some
@given(tokens=SIZES, size=st.integers(2, 300), dtype=DTYPES, affine=st.booleans(), seed=SEEDS)
def test_add_layer_norm_normalises_the_rounded_sum_and_returns_it(tokens, size, dtype, affine, seed):
    torch.manual_seed(seed)
    x, r = rand(tokens, size, dtype=dtype), rand(tokens, size, dtype=dtype)
    w, b = (rand(size, dtype=dtype), rand(size, dtype=dtype)) if affine else (None, None)
    normed, total = ops.add_layer_norm(x.clone(), r.clone(), w, b, 1e-3)
    assert torch.equal(total, x + r)
    assert torch.equal(normed, ops.layer_norm(x + r, w, b, 1e-3))


@some
@given(tokens=SIZES, size=st.integers(2, 300), dtype=DTYPES, affine=st.booleans(), seed=SEEDS)
def test_layer_norm_takes_off_the_mean(tokens, size, dtype, affine, seed):
    torch.manual_seed(seed)
    x = rand(tokens, size, dtype=dtype)
    w, b = (rand(size, dtype=dtype), rand(size, dtype=dtype)) if affine else (None, None)
    y = x.double() - x.double().mean(-1, keepdim=True)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    assert_close(ops.layer_norm(x, w, b, 1e-3), y * w.double() + b.double() if affine else y, dtype)


GATES = {
    "silu_and_mul": lambda g: g / (1 + (-g).exp()),
    "gelu_and_mul": lambda g: g * 0.5 * (1 + torch.erf(g / math.sqrt(2))),
    "gelu_tanh_and_mul": lambda g: 0.5 * g * (1 + torch.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3))),
}


@pytest.mark.parametrize("name", GATES)
@some
@given(tokens=SIZES, size=st.integers(1, 64), seed=SEEDS)
def test_gates_multiply_the_activated_first_half_with_the_second(name, tokens, size, seed):
    torch.manual_seed(seed)
    x = rand(tokens, 2 * size)
    want = GATES[name](x[:, :size].double()) * x[:, size:].double()
    assert_close(OPS[name].reference(x), want, torch.float32)


ACTIVATIONS = {
    "gelu": GATES["gelu_and_mul"],
    "gelu_tanh": GATES["gelu_tanh_and_mul"],
    "relu": lambda x: x * (x > 0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@some
@given(tokens=SIZES, size=st.integers(1, 64), seed=SEEDS)
def test_activations_without_a_gate_keep_the_size(name, tokens, size, seed):
    torch.manual_seed(seed)
    x = rand(tokens, size)
    assert_close(OPS[name].reference(x), ACTIVATIONS[name](x.double()), torch.float32)


@some
@given(
    tokens=SIZES, heads=st.integers(1, 3), half=st.integers(1, 8), rest=st.integers(0, 5),
    interleaved=st.booleans(), dtype=DTYPES, seed=SEEDS,
)  # fmt: skip
def test_rotary_turns_each_pair_by_its_angle(tokens, heads, half, rest, interleaved, dtype, seed):
    torch.manual_seed(seed)
    wide = rand(tokens, heads + 1, 2 * half + rest, dtype=dtype)
    x = wide[:, 1:]  # heads at a stride of their own
    angle = rand(tokens, half)
    want = x.double().clone()
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        turn = torch.polar(torch.ones(tokens, 1).double(), angle[:, i : i + 1].double())
        turned = torch.complex(x[..., a].double(), x[..., b].double()) * turn
        want[..., a], want[..., b] = turned.real, turned.imag
    got = ops.rotary(x.clone(), angle.cos(), angle.sin(), interleaved)
    assert_close(got, want, dtype)
    assert torch.equal(got[..., 2 * half :], x[..., 2 * half :])


@some
@given(tokens=SIZES, rows=st.integers(1, 20), cols=st.integers(1, 20), bias=st.booleans(), seed=SEEDS)
def test_linear_is_the_product_with_the_transposed_weight(tokens, rows, cols, bias, seed):
    torch.manual_seed(seed)
    x, w, b = rand(tokens, cols), rand(rows, cols), rand(rows) if bias else None
    want = torch.einsum("tc,rc->tr", x.double(), w.double()) + (b.double() if bias else 0)
    assert_close(ops.linear(x, w, b), want, torch.float32)


def test_embedding_takes_rows_and_argmax_the_first_largest():
    weight = rand(7, 5)
    ids = torch.tensor([6, 0, 0, 3])
    assert torch.equal(ops.embedding(ids, weight), torch.stack([weight[i] for i in (6, 0, 0, 3)]))
    assert ops.argmax(torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, 3.0]])).tolist() == [1, 0]


@some
@given(tokens=SIZES, block=st.integers(1, 6), head_axis=st.sampled_from([1, 2]), seed=SEEDS)
def test_write_kv_fills_the_slots_and_nothing_else(tokens, block, head_axis, seed):
    torch.manual_seed(seed)
    pages, kv, k_dim, v_dim = 12, 2, 4, 3
    shape = {2: (pages, block, kv), 1: (pages, kv, block)}[head_axis]
    k_pages, v_pages = torch.zeros(*shape, k_dim), torch.zeros(*shape, v_dim)
    slots = torch.randperm(pages * block)[:tokens]
    k, v = rand(tokens, kv, k_dim), rand(tokens, kv, v_dim)
    ops.write_kv(k, v, k_pages, v_pages, slots, head_axis)
    for part, new in ((k_pages, k), (v_pages, v)):
        flat = (part if head_axis == 2 else part.transpose(1, 2)).reshape(pages * block, kv, -1)
        assert torch.equal(flat[slots], new)
        flat[slots] = 0
        assert not flat.any()


def test_copy_pages_reads_all_sources_before_it_writes():
    pages = torch.arange(4)[:, None].repeat(1, 3).contiguous()
    ops.copy_pages(pages, torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert pages[:, 0].tolist() == [0, 0, 1, 3]


def test_every_op_has_a_contract_and_the_reference_kernel_finds_it():
    for name, entry in OPS.items():
        assert entry.reference.__doc__
        query = OpQuery(op=name, dtype="float32", device=Device("cpu"), shape={})
        assert reference_kernel(query) is entry.reference


def test_the_reference_of_a_layer_op_is_the_layers_composition():
    for target in LAYER_OPS.values():
        assert callable(load_target(target))


def test_an_op_is_entered_once_and_with_a_contract():
    def rms_norm():
        """Another."""

    def unheard_of():
        pass

    with pytest.raises(ValueError, match="in the table already"):
        op(rms_norm)
    with pytest.raises(ValueError, match="has no contract"):
        op(unheard_of)
