"""What a quantization method may have beside its product: promises about it, and other ways to its numbers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from vllm_core.layers.embedding import TokenEmbedding
from vllm_core.layers.linear import ColumnLinear
from vllm_core.testing.quantization_case import random_rows

ULPS = 4  # of the scales' arithmetic


class QuantizedBeside:
    """Each test skips, and says so, where the method has nothing of it."""

    sizes: ClassVar[Any]
    bound: Any
    matrix: Any

    def test_a_row_has_the_same_bits_in_any_batch_if_so_declared(self, scheme: str, dtype: str) -> None:
        """Methods that say ``batch_invariant = True``."""
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]
        model = self.bound(scheme, kind, ColumnLinear(inputs, out), {"": "model.net"})
        if not getattr(model.net.method, "batch_invariant", False):
            pytest.skip("the method does not say batch_invariant = True")
        model.load(self.matrix(scheme, "model.net", inputs, out, kind).stored)
        x = random_rows(40, inputs, kind)
        together = model.product(x)
        for start, stop in ((0, 1), (39, 40), (7, 24)):
            assert torch.equal(model.product(x[start:stop]), together[start:stop]), (
                f"{scheme}: rows {start} to {stop} alone have other bits than among 40, and batch_invariant is True"
            )

    def test_whole_numbers_and_scales_for_other_kernels_are_the_weights(self, scheme: str) -> None:
        """Methods with ``scaled(layer)``: what the op ``scaled_linear``, and kernels of whole layers, multiply with."""
        dtype, (inputs, out) = getattr(torch, next(iter(self.tolerance))), self.sizes[0]  # type: ignore[attr-defined]
        model = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"})
        if not hasattr(model.net.method, "scaled"):
            pytest.skip("the method gives no numbers and scales to other kernels")
        matrix = self.matrix(scheme, "model.net", inputs, out, dtype)
        model.load(matrix.stored)
        numbers, scales = model.net.method.scaled(model.net)
        assert (numbers.dtype, tuple(numbers.shape)) == (torch.int8, (out, inputs)), f"{numbers.dtype} {numbers.shape}"
        assert (scales.dtype, tuple(scales.shape)) == (torch.float32, (out,)), f"{scales.dtype} {scales.shape}"
        assert scales.is_contiguous(), "scales do not lie side by side"
        got = numbers.cpu().double() * scales.cpu().double()[:, None]
        off = (got - matrix.means).abs() > ULPS * torch.finfo(torch.float32).eps * matrix.means.abs()
        assert not off.any(), f"{scheme}: {int(off.sum())} of {off.numel()} numbers times scales are other weights"

    def test_rows_of_a_table_are_those_of_the_reference(self, scheme: str, dtype: str) -> None:
        """Methods with ``embedding``, which hold tables of embeddings, too."""
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]
        model = self.bound(scheme, kind, TokenEmbedding(out, inputs), {"": "model.net"})
        if model.net.method is None:
            pytest.skip("tables of embeddings are dense")
        matrix = self.matrix(scheme, "model.net", inputs, out, kind)
        model.load(matrix.stored)
        for ids in ([], [0], [out - 1, 0, 5, 5, out // 2]):
            got = model.net.rows(torch.tensor(ids, dtype=torch.int64, device=model.device)).cpu()
            want = matrix.means[ids]
            assert (got.dtype, got.shape) == (kind, want.shape), f"rows are {got.dtype} {list(got.shape)}"
            off = (got.double() - want).abs() > ULPS * torch.finfo(kind).eps * want.abs()
            assert not off.any(), (
                f"{scheme}: rows {ids} of a table differ from the reference's in {int(off.sum())} places"
            )
