"""Products of 8-bit integers are exact, and every way of computing one gives the same."""

from __future__ import annotations

import pytest
import torch
from int8_references import rounded
from torch import nn
from vllm_plugin_int8 import methods, products
from vllm_plugin_int8.methods import Int8Weights, Int8WeightsAndInputs, Source
from vllm_plugin_int8.rounding import round_rows

from vllm_core.interfaces.quantization import LinearShape

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def numbers(*shape, seed=0, most=127):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most - 1, most + 1, shape, generator=generator, dtype=torch.int8)


@pytest.mark.parametrize("tokens", [0, 1, 2, 16, 17, 33])
@pytest.mark.parametrize(("inputs", "out"), [(64, 48), (50, 34), (1, 1), (577, 131), (4096, 8)])
def test_integer_products_are_exact(tokens, inputs, out):
    x, weight = numbers(tokens, inputs).to(DEVICE), numbers(out, inputs, seed=1).to(DEVICE)
    got = products.integers(x, weight)
    assert got.dtype == torch.int32
    assert torch.equal(got.long().cpu(), x.long().cpu() @ weight.long().cpu().T)


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_w8a8_equals_integer_arithmetic_bit_for_bit(tokens):
    """Whole numbers of which each row has a 127 have the scale 1: all that is computed is then exact in float32."""
    x, dense = numbers(tokens, 96, most=126).float(), numbers(32, 96, seed=1, most=126).float()
    x[:, 7], dense[:, 5] = -127, 127
    method = Int8WeightsAndInputs(Source.DENSE)
    layer = made(method, dense * 2.0**-6, torch.full((32,), 3.0))
    got = method.apply(layer, (x * 2.0**9).to(DEVICE)).cpu()
    want = (x.long() @ dense.long().T) * 2**3 + 3
    assert torch.equal(got.double(), want.double())


def test_w8a8_is_the_integer_sum_times_both_scales():
    generator = torch.Generator().manual_seed(3)
    x, dense = torch.randn(9, 200, generator=generator), torch.randn(70, 200, generator=generator)
    method = Int8WeightsAndInputs(Source.DENSE)
    got = method.apply(made(method, dense), x.to(DEVICE)).cpu().double()
    (xn, xs), (wn, ws) = rounded(x), rounded(dense)
    sums = torch.from_numpy(xn).double() @ torch.from_numpy(wn).double().T
    want = sums * torch.from_numpy(xs).double() * torch.from_numpy(ws).double().T
    assert (got - want).abs().max() <= 3 * torch.finfo(torch.float32).eps * want.abs().max()


def made(method, dense, bias=None):
    """A layer whose dense weight was read, quantized and given back."""
    layer = nn.Module()
    shape = LinearShape(in_size=dense.shape[1], out_sizes=(len(dense),), bias=bias is not None)
    values = {"weight": dense, "bias": bias}
    for spec in method.params(shape, dense.dtype):
        value = values.get(spec.name, torch.zeros(spec.shape))
        layer.register_parameter(spec.name, nn.Parameter(value.to(DEVICE, spec.dtype), requires_grad=False))
    method.filled(layer)
    layer.weight.data = layer.weight.new_empty(0)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_weight_unpacked_in_pieces_gives_the_same(monkeypatch, dtype):
    x, weight, scales = torch.randn(5, 40).to(dtype), numbers(33, 40), torch.rand(33, 1)
    whole = products.unpacking(x, weight, scales)
    monkeypatch.setitem(products.PIECE, "cpu", 40 * 4)
    torch.testing.assert_close(products.unpacking(x, weight, scales), whole, rtol=2e-3, atol=1e-2)
    monkeypatch.setitem(products.PIECE, "cpu", 1)  # less than a row: a row at a time
    torch.testing.assert_close(products.unpacking(x, weight, scales), whole, rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize("make", [Int8Weights, Int8WeightsAndInputs])
def test_large_inputs_do_not_leave_the_range_of_float16(make):
    x, dense = torch.full((3, 4096), 60.0).half(), torch.full((8, 4096), 0.1).half()
    method = make(Source.DENSE)
    got = method.apply(made(method, dense), x.to(DEVICE)).cpu().float()
    torch.testing.assert_close(got, torch.full((3, 8), 60 * 0.1 * 4096), rtol=3e-3, atol=0)


def test_a_weight_rounded_in_pieces_is_the_same(monkeypatch):
    dense = torch.randn(50, 24)
    whole = made(Int8Weights(Source.DENSE), dense)
    monkeypatch.setitem(methods.PIECE, DEVICE, 24 * 7)
    pieces = made(Int8Weights(Source.DENSE), dense)
    assert torch.equal(whole.weight_int8, pieces.weight_int8)
    assert torch.equal(whole.weight_scale, pieces.weight_scale)


@pytest.mark.skipif(not products.packed_op_works(), reason="this torch has no _weight_int8pack_mm for this processor")
def test_the_packed_op_serves_few_bfloat16_rows_and_never_reads_past_a_row(monkeypatch):
    used = []
    real = torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *a: used.append(len(a[0])) or real(*a))
    cpu = torch.device("cpu")
    product = products.product_of(cpu, torch.bfloat16, 64)
    for tokens in (0, 1, products.FEW, products.FEW + 1):
        x, weight, scales = torch.randn(tokens, 64).bfloat16(), numbers(33, 64), torch.rand(33, 1)
        got, want = product(x, weight, scales).double(), x.double() @ (weight.double() * scales).T
        assert got.shape == want.shape
        assert not tokens or (got - want).abs().max() <= 4e-3 * want.abs().max()
    assert used == [0, 1, products.FEW]
    for dtype, inputs in ((torch.bfloat16, 50), (torch.bfloat16, 48), (torch.float32, 64), (torch.float16, 64)):
        assert products.product_of(cpu, dtype, inputs) is products.unpacking


def test_a_processor_whose_products_saturate_is_found_out(monkeypatch):
    def saturating(x, weight):  # as vpmaddubsw: unsigned by signed, pairs added in 16 bits
        pairs = (x.int() + 128).unflatten(-1, (-1, 2))[:, None] * weight.int().unflatten(-1, (-1, 2))[None]
        return pairs.sum(-1).clamp(-(2**15), 2**15 - 1).sum(-1).int() - 128 * weight.int().sum(-1)

    fresh = products.inexact_on_cpu.__wrapped__
    assert fresh() == ""
    monkeypatch.setattr(products, "integers", saturating)
    assert fresh() == "products of 8-bit integers come out wrong on this processor"

    def lacking(x, weight):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(products, "integers", lacking)
    assert fresh() == "this torch multiplies no 8-bit integers on this processor: no kernel"


def test_more_inputs_than_fit_into_32_bits_are_refused():
    shape = LinearShape(in_size=131_072, out_sizes=(1,))
    with pytest.raises(ValueError, match="sums of more than 131,071 products"):
        Int8WeightsAndInputs(Source.DENSE).params(shape, torch.float32)
    assert Int8Weights(Source.DENSE).params(shape, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_rounded_to_the_nearest_and_zeros_stay(dtype):
    x = torch.tensor([[127.0, 0.5, 1.5, -0.75], [0, 0, 0, 0], [-4.0, 2.0, 1.0, 4.0]], dtype=dtype)
    got, scales = round_rows(x)
    assert got[:2].tolist() == [[127, 0, 2, -1], [0, 0, 0, 0]]
    assert scales[:2].flatten().tolist() == [1, 0]
    want, steps = rounded(x)
    assert torch.equal(got.float(), torch.from_numpy(want))
    assert torch.equal(scales, torch.from_numpy(steps))
    assert round_rows(x[:0])[0].shape == (0, 4)
    assert round_rows(x[:0])[1].shape == (0, 1)
