"""The method of matrices that are stored as they are: one weight, maybe a bias."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vllm_core.interfaces.quantization import LinearShape, ParamSpec


class DenseLinear:
    """``LinearMethod`` that multiplies with the op ``linear``; its kernel may pack (`interfaces.op.PackingKernel`)."""

    def __init__(self, linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> None:
        self.linear = linear
        self.pack: Callable[[Tensor], Tensor] | None = getattr(linear, "pack", None)

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        out = sum(shape.out_sizes)
        specs = [ParamSpec(name="weight", shape=(out, shape.in_size), dtype=dtype)]
        if shape.bias:
            specs.append(ParamSpec(name="bias", shape=(out,), dtype=dtype, in_dim=None))
        return specs

    def filling(self, layer: nn.Module) -> None:
        """Make the weight again that ``loaded`` gave back."""
        packed, weight = layer.__dict__.pop("packed", None), layer._parameters["weight"]
        if packed is not None and weight is not None:
            weight.data = torch.empty(packed.shape, dtype=weight.dtype, device=weight.device)

    def loaded(self, layer: nn.Module) -> None:
        """Pack the weight, if the kernel wants that, and give back the unpacked one."""
        weight = layer._parameters["weight"]
        if self.pack is not None and weight is not None:
            packed = self.pack(weight)
            weight.data = weight.new_empty(0)
            layer.__dict__["packed"] = packed

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made = layer._parameters  # a plain dict: nn.Module's own attribute lookup is several times slower
        weight = made["weight"] if self.pack is None else layer.__dict__["packed"]
        return self.linear(x, weight, made.get("bias"))  # type: ignore[arg-type]
