"""A batch of more than 2^31 elements: each row's result is that row's (CVE-2026-73558: an offset of 32 bits).

Rows are zeros but for the first and the last two; pages that are never written take no memory to read.
"""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import pytest
import torch
from vllm_plugin_cpu_native.gated_mlp import NativeGatedMLP
from vllm_plugin_cpu_native.limits import machine_limits
from vllm_plugin_cpu_native.linear import NativeLinear

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery

DTYPE = "bfloat16"
MOST = 1 << 31  # elements
pytestmark = pytest.mark.skipif(bool(machine_limits(DTYPE)), reason=machine_limits(DTYPE))


def batch(rows: int, columns: int) -> torch.Tensor:
    """[rows, columns]"""
    memory = mmap.mmap(-1, rows * columns * 2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    x = torch.frombuffer(memory, dtype=torch.bfloat16).view(rows, columns)
    x[0], x[-2:] = torch.randn(columns), torch.randn(2, columns)
    return x


def check(run, x: torch.Tensor) -> None:
    """``run(rows) -> rows``; those of zeros give zeros."""
    first, last = run(x[:1].clone()), run(x[-2:].clone())
    out = run(x)
    assert torch.equal(out[:1], first)
    assert torch.equal(out[-2:], last)
    assert first.any()
    assert last.any(-1).all()
    assert not out[1:-2].any()


def test_products_of_rows_beyond_two_to_the_31_elements_are_those_of_the_rows_alone():
    columns, outputs = 1 << 16, 4
    shape = {"in_size": columns, "out_size": outputs, "bias": False}
    multiply = NativeLinear(OpQuery(op="linear", dtype=DTYPE, device=Device("cpu"), shape=shape))
    weight = torch.randn(outputs, columns).bfloat16()
    check(lambda x: multiply(x, weight), batch(MOST // columns + 3, columns))


def test_gates_of_more_than_two_to_the_31_elements_are_those_of_the_rows_alone():
    """The advisory's: 278,528 tokens at once, each of them gate and up of 2 x 16,384 elements."""
    hidden, inner = 4, 1 << 14
    rows = MOST // (2 * inner) + 3

    def matrix(outputs: int, inputs: int) -> SimpleNamespace:
        method = SimpleNamespace(pack=None)
        return SimpleNamespace(weight=torch.randn(outputs, inputs).bfloat16() / inputs**0.5, bias=None, method=method)

    layer = SimpleNamespace(
        hidden=hidden, intermediate=inner, act="silu", post_norm=None,
        norm=SimpleNamespace(weight=torch.ones(hidden).bfloat16(), eps=1e-5),
        gate_up=matrix(2 * inner, hidden), down=matrix(hidden, inner),
    )  # fmt: skip
    half = NativeGatedMLP(layer, is_float=False)
    check(lambda x: half(x, None, None)[0], batch(rows, hidden))
