"""What a quantized matrix means and what it multiplies to: the reference's, bit by bit and in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from vllm_core.layers.linear import ColumnLinear, MergedLinear
from vllm_core.layers.qkv import QKVLinear
from vllm_core.testing.quantization_case import QuantizationScheme, random_rows, stored

BATCHES = (0, 1, 3, 17, 40)  # tokens
ULPS = 4  # of the scales' arithmetic


class QuantizedProducts:
    """Tests of each scheme."""

    schemes: ClassVar[Mapping[str, QuantizationScheme]]
    tolerance: ClassVar[Mapping[str, float]]
    needs: Any
    bound: Any
    matrix: Any
    products: Any

    def test_stored_numbers_are_unpacked_as_the_reference_unpacks_them(
        self, scheme: str, size: tuple[int, int]
    ) -> None:
        """Multiplied with the unit matrix. What is allowed beside it is less than half a step of 16 bits."""
        dtype = getattr(torch, next(iter(self.tolerance)))
        inputs, out = size
        matrix = self.matrix(scheme, "model.net", inputs, out, dtype)
        model = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"})
        model.load(matrix.stored)
        got = model.product(torch.eye(inputs, dtype=dtype)).double().T
        allowed = ULPS * torch.finfo(dtype).eps * matrix.means.abs()
        wrong = ~((got - matrix.means).abs() <= allowed)
        if wrong.any():
            o, i = (int(n) for n in wrong.nonzero()[0])
            raise AssertionError(
                f"{scheme}: {int(wrong.sum())} of {wrong.numel()} weights differ from the reference's\n"
                f"  first   output {o}, input {i}: {got[o, i].item():.8g} instead of {matrix.means[o, i].item():.8g}"
            )

    @pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
    def test_products_are_those_of_float64(self, scheme: str, dtype: str, size: tuple[int, int], biased: bool) -> None:
        if biased:
            self.needs("bias")
        kind, (inputs, out) = getattr(torch, dtype), size
        matrix = self.matrix(scheme, "model.net", inputs, out, kind, biased=biased)
        model = self.bound(scheme, kind, ColumnLinear(inputs, out, bias=biased), {"": "model.net"})
        model.load(matrix.stored)
        for tokens in BATCHES:
            self.products(scheme, model, [matrix], random_rows(tokens, inputs, kind, seed=tokens))

    def test_rows_of_a_wider_tensor_are_multiplied_as_their_copy(self, scheme: str, dtype: str) -> None:
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]  # type: ignore[attr-defined]
        matrix = self.matrix(scheme, "model.net", inputs, out, kind)
        model = self.bound(scheme, kind, ColumnLinear(inputs, out), {"": "model.net"})
        model.load(matrix.stored)
        wide = random_rows(5, 3 * inputs, kind)
        self.products(scheme, model, [matrix], wide[:, inputs : 2 * inputs])

    def test_the_error_against_dense_weights_is_as_small_as_stated(self, scheme: str) -> None:
        """With weights and inputs drawn from a normal distribution, in the first dtype."""
        dtype, (inputs, out) = getattr(torch, next(iter(self.tolerance))), self.largest()  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(out, inputs, generator=generator).to(dtype).float()
        x = torch.randn(64, inputs, generator=generator).to(dtype)
        matrix = self.matrix(scheme, "model.net", inputs, out, dtype, weight=weight)
        model = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"})
        model.load(matrix.stored)
        want = x.double() @ weight.double().T
        loss = ((model.product(x).double() - want).norm() / want.norm()).item()
        stated = self.schemes[scheme].loss
        assert loss <= stated, f"{scheme}: a product is off by {loss:.2%} of its norm, stated are {stated:.2%}"

    def test_fused_matrices_give_what_they_give_apart(self, scheme: str, dtype: str, size: tuple[int, int]) -> None:
        self.needs("fused slots")
        kind, (inputs, out) = getattr(torch, dtype), size
        x = random_rows(17, inputs, kind)
        for layer, sizes in (
            (MergedLinear(inputs, {"gate": out, "up": 2 * out}), {"gate": out, "up": 2 * out}),
            (QKVLinear(inputs, 4, 1, out // 2), {"q": 2 * out, "k": out // 2, "v": out // 2}),
        ):
            names = {slot: f"model.layers.0.{slot}_proj" for slot in sizes}
            parts = [
                self.matrix(scheme, names[slot], inputs, n, kind, seed=i) for i, (slot, n) in enumerate(sizes.items())
            ]
            model = self.bound(scheme, kind, layer, names)
            model.load(stored(parts))
            self.products(scheme, model, parts, x)

    def test_weights_read_again_replace_the_old_ones_in_place(self, scheme: str, dtype: str) -> None:
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]  # type: ignore[attr-defined]
        first, second = (self.matrix(scheme, "model.net", inputs, out, kind, seed=seed) for seed in (0, 1))
        model = self.bound(scheme, kind, ColumnLinear(inputs, out), {"": "model.net"})
        x = random_rows(17, inputs, kind)
        model.load(first.stored)
        before, held = model.product(x), _addresses(model)
        with torch.no_grad():
            for p in model.parameters():
                p.view(torch.uint8).fill_(0x7B)  # whatever is not read again shows
        model.load(second.stored)
        self.products(scheme, model, [second], x, "read a second time")
        model.load(first.stored)
        assert torch.equal(model.product(x), before), f"{scheme}: the first weights, read again, give another product"
        moved = [name for name, address in _addresses(model).items() if held[name] != address]
        assert not moved, f"{scheme}: {', '.join(moved)} moved to another address, where captured graphs do not look"

    def test_the_product_never_waits_for_the_device(self, scheme: str) -> None:
        dtype, (inputs, out) = getattr(torch, next(iter(self.tolerance))), self.largest()  # type: ignore[attr-defined]
        model = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"})
        if model.device.type != "cuda":
            pytest.skip("needs a CUDA device: on a CPU every operation waits")
        model.load(self.matrix(scheme, "model.net", inputs, out, dtype).stored)
        x = random_rows(3, inputs, dtype).to(model.device)
        model.net.apply_linear(model.net, x)  # what is compiled or allocated once happens here
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.net.apply_linear(model.net, x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _addresses(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.data_ptr() for name, p in model.named_parameters() if p.numel()}
