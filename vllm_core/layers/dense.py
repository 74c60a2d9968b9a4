"""The method of matrices that are stored as they are: one weight, maybe a bias."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vllm_core.interfaces.quantization import LinearShape, ParamSpec


class DenseLinear:
    """``LinearMethod`` that multiplies with the op ``linear``."""

    def __init__(self, linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> None:
        self.linear = linear

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        out = sum(shape.out_sizes)
        specs = [ParamSpec(name="weight", shape=(out, shape.in_size), dtype=dtype)]
        if shape.bias:
            specs.append(ParamSpec(name="bias", shape=(out,), dtype=dtype, in_dim=None))
        return specs

    def loaded(self, layer: nn.Module) -> None:
        """Nothing to repack."""

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made = layer._parameters  # a plain dict: nn.Module's own attribute lookup is several times slower
        return self.linear(x, made["weight"], made.get("bias"))  # type: ignore[arg-type]
