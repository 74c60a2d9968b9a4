"""A batch of more than 2^31 elements: each row's result is that row's (CVE-2026-73558: an offset of 32 bits)."""

from __future__ import annotations

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel

pytestmark = pytest.mark.usefixtures("gpu", "room")
SIZE = 1 << 14  # elements of a row's result
NEEDED = 24 << 30  # bytes


@pytest.fixture
def room(gpu):
    if torch.cuda.mem_get_info()[0] < NEEDED:
        pytest.skip(f"needs {NEEDED >> 30} GiB of free memory on the GPU")


def batch(columns: int) -> torch.Tensor:
    """[T, columns]: zeros but for the first row and the last two."""
    x = torch.zeros((1 << 31) // columns + 3, columns, dtype=torch.bfloat16)
    x[0], x[-2:] = torch.randn(columns), torch.randn(2, columns)
    return x


def check(run, x: torch.Tensor) -> None:
    """``run(rows) -> rows``; those of zeros give zeros."""
    first, last = run(x[:1].clone()), run(x[-2:].clone())
    out = run(x)
    assert torch.equal(out[:1], first)
    assert torch.equal(out[-2:], last)
    assert last.any(-1).all()
    assert not any(part.any() for part in out[1:-2].split(4096))


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_tanh"])
def test_gates_of_rows_beyond_two_to_the_31_elements_are_those_of_the_rows_alone(act):
    check(kernel(f"{act}_and_mul", size=SIZE), batch(2 * SIZE))


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_activations_beyond_two_to_the_31_elements_are_those_of_the_rows_alone(act):
    check(kernel(act, size=SIZE), batch(SIZE))


def test_norms_of_rows_beyond_two_to_the_31_elements_are_those_of_the_rows_alone():
    weight = torch.randn(SIZE, dtype=torch.bfloat16)
    check(lambda x: kernel("rms_norm", size=SIZE)(x, weight, 1e-5), batch(SIZE))
