"""Products against float64, and that a row's result depends on that row alone."""

from __future__ import annotations

import attrs
import pytest
import torch
import vllm_plugin_cpu_native
from vllm_plugin_cpu_native.limits import machine_limits
from vllm_plugin_cpu_native.linear import NativeLinear, NativeScaledLinear

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Refusal

QUERY = OpQuery(
    op="linear", dtype="float32", device=Device("cpu"), shape={"in_size": 48, "out_size": 32, "bias": False}
)


def needs(dtype: str):
    return pytest.mark.skipif(bool(machine_limits(dtype)), reason=machine_limits(dtype))


DTYPES = [
    pytest.param("float32", 1e-6, marks=needs("float32")),
    pytest.param("bfloat16", 5e-3, marks=needs("bfloat16")),
]


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 4, 5, 7, 33, 127, 128, 200])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 32), (1, 5), (577, 131), (64, 1), (4096, 17)])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_those_of_float64(dtype, bound, tokens, inputs, outputs, biased):
    torch.manual_seed(tokens)
    kind = getattr(torch, dtype)
    x, weight = torch.randn(tokens, inputs).to(kind), torch.randn(outputs, inputs).to(kind)
    bias = torch.randn(outputs).to(kind) if biased else None
    got = NativeLinear(attrs.evolve(QUERY, dtype=dtype))(x, weight, bias)
    want = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert got.dtype == kind
    assert got.shape == want.shape
    assert (got.double() - want).norm() <= bound * max(want.norm(), 1)


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_a_row_has_the_same_product_bit_for_bit_in_any_batch_and_with_any_number_of_threads(dtype, bound):
    kernel = NativeLinear(attrs.evolve(QUERY, dtype=dtype))
    kind, before = getattr(torch, dtype), torch.get_num_threads()
    x, weight = torch.randn(150, 100).to(kind), torch.randn(70, 100).to(kind)
    alone = torch.cat([kernel(row, weight) for row in x.split(1)])
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            kernel = NativeLinear(attrs.evolve(QUERY, dtype=dtype))
            for size in (1, 2, 3, 4, 5, 16, 150):
                assert torch.equal(torch.cat([kernel(part, weight) for part in x.split(size)]), alone)
    finally:
        torch.set_num_threads(before)
        NativeLinear(QUERY)


@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 5, 33, 130])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 32), (1, 5), (577, 131)])
@pytest.mark.parametrize("biased", [False, True])
def test_whole_numbers_are_multiplied_and_scaled_as_in_float64(dtype, bound, tokens, inputs, outputs, biased):
    torch.manual_seed(tokens)
    kind = getattr(torch, dtype)
    x, numbers = torch.randn(tokens, inputs).to(kind), torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
    scales, bias = torch.rand(outputs) / 50, torch.randn(outputs).to(kind) if biased else None
    got = NativeScaledLinear(attrs.evolve(QUERY, op="scaled_linear", dtype=dtype))(x, numbers, scales, bias)
    want = (x.double() @ numbers.double().T) * scales.double() + (0 if bias is None else bias.double())
    assert got.dtype == kind
    assert (got.double() - want).norm() <= bound * max(want.norm(), 1)


@needs("float32")
def test_a_slice_of_a_larger_tensor_is_multiplied_as_its_copy():
    kernel, wide, weight = NativeLinear(QUERY), torch.randn(9, 100), torch.randn(32, 48)
    assert torch.equal(kernel(wide[:, 10:58], weight), kernel(wide[:, 10:58].contiguous(), weight))


@needs("float32")
def test_what_is_offered_and_what_is_refused():
    ask = vllm_plugin_cpu_native.op_kernel
    assert isinstance(ask(QUERY), Offer)
    assert ask(attrs.evolve(QUERY, op="rotary")) is None
    assert ask(attrs.evolve(QUERY, device=Device("cuda"))) is None
    assert "float16 is neither" in ask(attrs.evolve(QUERY, dtype="float16")).reason
    norm = {"norm": "LayerNorm", "linear": "DenseLinear"}
    assert "norm is a LayerNorm" in ask(attrs.evolve(QUERY, op="gated_mlp", shape=norm)).reason
    packed = {"norm": "RMSNorm", "linear": "GgufLinear"}
    assert "multiplied by GgufLinear" in ask(attrs.evolve(QUERY, op="gated_mlp", shape=packed)).reason


def test_without_its_library_everything_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("vllm_plugin_cpu_native.library.PATH", tmp_path / "none.so")
    answer = vllm_plugin_cpu_native.op_kernel(QUERY)
    assert isinstance(answer, Refusal)
    assert "built without its kernels" in answer.reason
