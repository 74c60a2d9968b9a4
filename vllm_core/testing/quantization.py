"""`QuantizationConformance`: the tests that every quantization method runs. docs/conformance.md says how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.distributed.dry import DryGroup
from vllm_core.layers.linear import Linear
from vllm_core.testing.kit import Conformance
from vllm_core.testing.quantization_beside import QuantizedBeside
from vllm_core.testing.quantization_case import (
    AskedMethod,
    Bound,
    Matrix,
    QuantizationScheme,
    assert_product,
    random_weight,
)
from vllm_core.testing.quantization_products import QuantizedProducts
from vllm_core.testing.quantization_ranks import QuantizedRanks


class QuantizationConformance(QuantizedProducts, QuantizedRanks, QuantizedBeside, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    method      the name of its offer, as in --quantization and "quant_method"
    schemes     name -> `QuantizationScheme`: each runs all tests
    sizes       (inputs, outputs) of the matrices; halves of both must suit the method, too
    tolerance   dtype of activations -> largest error of an element of a product, of the sum of its terms' sizes. The
                first dtype runs all tests
    dense       names of matrices that stay dense by default, such as "lm_head"
    refused     name -> quantization_config that the plugin must refuse
    device      platform to run on
    plugin_settings   fields of [plugin.NAME]
    cannot      "bias", "fused slots", "column shards", "row shards", "padded rows", "skip list": what it does not do
                -> why. These tests are skipped. Any other name may be added; all are printed after every run

    Two references are yours: ``pack`` and ``dequantize``, written from the format's description and not with the
    code that is tested. ``inputs_of`` and ``ignoring`` have answers for methods that need none.
    """

    kind = "quantization"
    hook = "quantization_method"
    subject = "method"

    method: ClassVar[str]
    schemes: ClassVar[Mapping[str, QuantizationScheme]]
    sizes: ClassVar[Sequence[tuple[int, int]]] = ((64, 48), (50, 34))
    tolerance: ClassVar[Mapping[str, float]] = {"float32": 1e-6, "bfloat16": 8e-3}
    dense: ClassVar[tuple[str, ...]] = ()
    refused: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    device: ClassVar[str] = "auto"
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    def pack(self, scheme: str, weight: Tensor) -> Mapping[str, Tensor]:
        """What a checkpoint stores for ``weight`` (float32 [out, in]): parameter -> tensor.

        Not asked for a scheme that quantizes while loading: there the weight itself is stored.
        """
        raise pytest.UsageError(f"{type(self).__name__} gives no reference packer: override pack()")

    def dequantize(self, scheme: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """What these tensors mean, [out, in]: in float32 arithmetic as the format defines it, or in float64.

        For a scheme that quantizes while loading: ``tensors["weight"]`` quantized and back.
        """
        raise pytest.UsageError(f"{type(self).__name__} gives no reference dequantizer: override dequantize()")

    def inputs_of(self, scheme: str, x: Tensor) -> Tensor:
        """What is multiplied in place of x [T, in]: x itself unless activations are quantized, too."""
        return x

    def ignoring(self, scheme: str, names: Sequence[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Fields of quantization_config, and of [plugin.NAME], that leave the checkpoint's matrices ``names`` dense."""
        skip = {"ignore": list(names)}
        return ({}, skip) if self.schemes[scheme].online else (skip, {})

    def config(self, scheme: str, names: Sequence[str]) -> Mapping[str, Any]:
        """quantization_config of a checkpoint with the matrices ``names``."""
        return self.schemes[scheme].config

    @classmethod
    def ask(cls) -> AskedMethod:
        return AskedMethod(cls.method, cls.device)

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls, request: pytest.FixtureRequest) -> AskedMethod:
        return request.cls.ask()

    @pytest.fixture(autouse=True)
    def _use(self, asked: AskedMethod) -> None:
        self._asked = asked

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for name, values in (
            ("scheme", self.schemes),
            ("dtype", self.tolerance),
            ("refused", self.refused),
        ):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, list(values))
        if "size" in metafunc.fixturenames:
            metafunc.parametrize("size", self.sizes, ids=lambda size: f"{size[0]}x{size[1]}")
        super().pytest_generate_tests(metafunc)

    @classmethod
    def largest(cls) -> tuple[int, int]:
        return max(cls.sizes, key=lambda size: size[0] * size[1])

    def bound(
        self,
        scheme: str,
        dtype: torch.dtype,
        layer: Linear,
        names: Mapping[str, str],
        group: DryGroup | None = None,
        *,
        ignoring: Sequence[str] = (),
        on_meta: bool = False,
    ) -> Bound:
        """``layer`` bound with the method, to be loaded from the checkpoint modules ``names`` (slot -> name)."""
        fields, settings = self.ignoring(scheme, ignoring) if ignoring else ({}, {})
        config = {**self.config(scheme, list(names.values())), **fields}
        made = self._asked.quantization(config, str(dtype).removeprefix("torch."), {**self.plugin_settings, **settings})
        return Bound(made, self._asked, dtype, layer, names, group, on_meta=on_meta)

    def matrix(
        self,
        scheme: str,
        name: str,
        inputs: int,
        out: int,
        dtype: torch.dtype,
        *,
        biased: bool = False,
        seed: int = 0,
        weight: Tensor | None = None,
    ) -> Matrix:
        """A matrix of the checkpoint: random unless ``weight`` [out, inputs] is given."""
        if weight is None:
            weight = random_weight(out, inputs, dtype, seed)
        online = self.schemes[scheme].online
        tensors = {"weight": weight.to(dtype)} if online else dict(self.pack(scheme, weight))
        means = self.dequantize(scheme, tensors).double()
        assert means.shape == weight.shape, f"dequantize() gives {list(means.shape)}, not {list(weight.shape)}"
        if biased:
            tensors["bias"] = torch.randn(out, generator=torch.Generator().manual_seed(seed)).to(dtype)
        return Matrix(name=name, weight=weight, tensors=tensors, means=means)

    def products(self, scheme: str, got: Bound | Tensor, matrices: Sequence[Matrix], x: Tensor, what: str = "") -> None:
        """``got``, the product of x or a model to make it, is that of the matrices side by side."""
        __tracebackhide__ = True
        y = got.product(x) if isinstance(got, Bound) else got
        means = torch.cat([matrix.means for matrix in matrices])
        bias = torch.cat([matrix.bias for matrix in matrices])
        bound = self.tolerance[str(x.dtype).removeprefix("torch.")]
        says = ", ".join(filter(None, [scheme, f"{len(x)} rows", what]))
        assert_product(y, [(self.inputs_of(scheme, x), means)], bias, bound, says)
