"""A quantization method as the engine comes by it, and matrices bound and loaded through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.config.engine import EngineSettings
from vllm_core.config.plugins import plugin_settings
from vllm_core.distributed.dry import DryGroup
from vllm_core.engine.choices import choose_quantization
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.interfaces.weights import Slices, TensorInfo
from vllm_core.layers.base import Layer
from vllm_core.layers.linear import Linear
from vllm_core.plugins import Selector, load_catalog, read_policy
from vllm_core.runner.plan import EnginePlan
from vllm_core.weights import Table, load_weights, rule

HOOK = "quantization_method"


@attrs.frozen(kw_only=True)
class QuantizationScheme:
    """One way in which the method holds weights.

    config  quantization_config of such a checkpoint, "quant_method" included; {}: a dense
            checkpoint is quantized while it is loaded
    bits    most that may be held for a weight in the largest of the kit's sizes, scales included
    loss    largest error of a product of normally distributed numbers, of its norm
    """

    config: Mapping[str, Any] = attrs.field(factory=dict)
    bits: float
    loss: float

    @property
    def online(self) -> bool:
        return not self.config


class AskedMethod:
    """The quantization method ``name`` of an installed plugin, on a device."""

    def __init__(self, name: str, device: str = "auto") -> None:
        self.name = name
        self.catalog = load_catalog(read_policy({}))
        owners = [p for p in self.catalog.active if any((o.kind, o.name) == (HOOK, name) for o in p.provides)]
        if not owners:
            raise self.catalog.nobody(HOOK, name)
        self.plugin = owners[0]
        asked = None if device == "auto" else device
        platform = Selector(self.catalog).choose("platform", PlatformQuery(name=device), asked).load()()
        self.device, self.torch_device = platform.facts(), platform.torch_device(0)

    def quantization(
        self, config: Mapping[str, Any], dtype: str, settings: Mapping[str, Any] | None = None, *, by_user: bool = False
    ) -> Any:
        """`interfaces.quantization.Quantization` of a checkpoint with this quantization_config.

        settings   of the plugin, as in [plugin.NAME]
        by_user    the user names the method, too; without a "quant_method" in ``config`` always
        """
        self.catalog.settings = plugin_settings(self.catalog, {self.plugin.name: settings} if settings else {})
        named = self.name if by_user or "quant_method" not in config else None
        engine = EngineSettings(quantization=named)
        stored = {"quantization_config": dict(config)} if config else {}
        return choose_quantization(Selector(self.catalog), engine, stored, dtype, self.device)

    @cached_property
    def module(self) -> str:
        return self.plugin.module


@cache
def installed() -> Selector:
    """Chooses among the installed plugins whatever a layer asks for beside its method."""
    return Selector(load_catalog(read_policy({})))


class InMemory:
    """`interfaces.weights.WeightSource` over tensors."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {
            name: TensorInfo(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), t.nbytes)
            for name, t in self._tensors.items()
        }

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        return self._tensors[name][tuple(slice(*s) for s in slices)]

    def close(self) -> None:
        """Nothing is open."""


class Bound(Layer):
    """A model that is one linear layer, bound: ``net``, filled from the checkpoint modules ``names`` (by slot)."""

    def __init__(
        self,
        quantization: Any,
        asked: Any,
        dtype: torch.dtype,
        layer: Linear,
        names: Mapping[str, str],
        group: DryGroup | None = None,
        *,
        on_meta: bool = False,
    ) -> None:
        super().__init__()
        self.weights = [rule(f"{name}.{{w}}", "net.{w}", slot=slot) for slot, name in names.items()]
        self.net = layer
        self.device = torch.device("meta") if on_meta else asked.torch_device
        plan = EnginePlan(
            installed(),
            dtype,
            self.device,
            asked.device,
            {"tp": group or DryGroup()},
            max_tokens=64,
            max_position=64,
            quantization=quantization,
            weight_table=Table(self.weights),
        )
        self.bind(plan)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_weights(self, InMemory(tensors))

    @torch.inference_mode()
    def product(self, x: Tensor) -> Tensor:
        """x [T, in_size] -> [T, out_size] on the CPU; tells if x was written to."""
        given = x.to(self.device)
        before = given.clone()
        y = self.net.apply_linear(self.net, given)
        assert torch.equal(given, before), "the product writes to its input, which belongs to others"
        assert y.dtype == x.dtype, f"a product of {x.dtype} is {y.dtype}"
        return y.cpu()


@attrs.frozen(kw_only=True)
class Matrix:
    """A matrix of a checkpoint as the reference has it."""

    name: str  # of its module
    weight: Tensor  # before it was quantized, float32 [out, in]
    tensors: Mapping[str, Tensor]  # as stored: parameter -> tensor, "bias" included
    means: Tensor  # what the stored tensors mean, float64 [out, in]

    @property
    def bias(self) -> Tensor:
        """float64 [out]."""
        return self.tensors["bias"].double() if "bias" in self.tensors else torch.zeros(len(self.means)).double()

    @property
    def stored(self) -> dict[str, Tensor]:
        return {f"{self.name}.{parameter}": tensor for parameter, tensor in self.tensors.items()}


def stored(matrices: Sequence[Matrix]) -> dict[str, Tensor]:
    return {name: tensor for matrix in matrices for name, tensor in matrix.stored.items()}


def random_weight(out: int, inputs: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """float32 [out, inputs] that ``dtype`` can hold: rows of very different sizes, an outlier, and a row of zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inputs, generator=generator) * torch.exp2(torch.arange(out) % 7 - 3.0)[:, None]
    weight[out // 2, inputs // 3] *= 20
    weight[out - 1] = 0
    return weight.to(dtype).float()


def random_rows(tokens: int, inputs: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """[tokens, inputs]: rows of very different sizes; the third is zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, inputs, generator=generator) * torch.exp2(torch.arange(tokens) % 7 - 3.0)[:, None]
    x[2:3] = 0
    return x.to(dtype)


def assert_product(got: Tensor, parts: Sequence[tuple[Tensor, Tensor]], bias: Tensor, bound: float, what: str) -> None:
    """``got`` [T, out] is the sum of x W^T over ``parts`` (x [T, in], W [out, in]) plus ``bias``, in float64.

    Each element may be off by ``bound`` times the sum of its terms' absolute values: small channels and rows count
    as much as large ones.
    """
    __tracebackhide__ = True
    want: Any = sum(x.double() @ w.double().T for x, w in parts) + bias
    room: Any = sum(x.double().abs() @ w.double().abs().T for x, w in parts) + bias.abs()
    assert got.shape == want.shape, f"{what}: the product is {list(got.shape)}, not {list(want.shape)}"
    if not got.numel():
        return
    off = (got.double() - want).abs()
    bad = ~(off <= bound * room)  # NaN is bad
    if bad.any():
        t, n = (int(i) for i in bad.nonzero()[0])
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {got.numel()} elements are off by more than {bound:.1e} of the sum of"
            f" their terms' sizes\n  first   row {t}, output {n}: {got[t, n].item():.6g} instead of"
            f" {want[t, n].item():.6g}, allowed +-{(bound * room[t, n]).item():.1g}"
        )
