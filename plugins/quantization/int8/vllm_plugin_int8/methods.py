"""`interfaces.quantization.LinearMethod` for 8-bit weights, with and without 8-bit inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vllm_core.interfaces.quantization import LinearShape, ParamSpec
from vllm_plugin_int8.products import Product, integers, numbers_of
from vllm_plugin_int8.rounding import round_rows

# Weights that are rounded at a time. Larger temporaries on a CPU stay with the allocator: 180 MiB of SmolLM2-135M's
# start with 1 << 22.
PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
MOST_INPUTS = (2**31 - 1) // 128**2  # so many products of two 8-bit numbers fit into 32 bits


class Int8Weights:
    """Weights are whole numbers from -128 to 127 and a float32 scale for each output: y = (x N^T) * scales + b.

    online   made of a dense weight while it is loaded; otherwise the checkpoint holds them
    """

    def __init__(self, *, online: bool) -> None:
        self.online = online
        self.numbers = "weight_int8" if online else "weight"
        self.product: Product | None = None

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        out, stored = sum(shape.out_sizes), not self.online
        specs = [
            ParamSpec(name=self.numbers, shape=(out, shape.in_size), dtype=torch.int8, stored=stored),
            ParamSpec(name="weight_scale", shape=(out, 1), dtype=torch.float32, in_dim=None, stored=stored),
        ]
        if self.online:
            specs.append(ParamSpec(name="weight", shape=(out, shape.in_size), dtype=dtype, kept=False))
        if shape.bias:
            specs.append(ParamSpec(name="bias", shape=(out,), dtype=dtype, in_dim=None))
        return specs

    def filled(self, layer: nn.Module) -> None:
        """Quantize the dense weight, which is given back after this."""
        if self.online:
            made: Any = layer._parameters
            step = max(1, PIECE[made["weight"].device.type] // made["weight"].shape[1])
            places = (made[name].split(step) for name in ("weight", "weight_int8", "weight_scale"))
            for dense, numbers, scales in zip(*places, strict=True):
                found = round_rows(dense)
                numbers.copy_(found[0])
                scales.copy_(found[1])

    def loaded(self, layer: nn.Module) -> None:
        """Everything was done in ``filled``."""

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made: Any = layer._parameters  # a plain dict: nn.Module's own attribute lookup is several times slower
        numbers = made[self.numbers]
        if self.product is None:
            self.product = numbers_of(x.device, x.dtype, x.shape[-1])
        return finish(self.product(x, numbers), made["weight_scale"].t(), made.get("bias"), x.dtype)


class Int8WeightsAndInputs(Int8Weights):
    """Inputs are rounded, too, a scale for each token: y = (M N^T) * scales_x * scales + b, with x ~ M * scales_x."""

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        if shape.in_size > MOST_INPUTS:
            raise ValueError(
                f"a matrix of {shape.in_size:,} inputs: sums of more than {MOST_INPUTS:,} products of 8-bit integers do"
                " not fit into 32 bits; leave it dense with [plugin.int8] ignore"
            )
        return super().params(shape, dtype)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made: Any = layer._parameters
        rounded, scales = round_rows(x)
        y = integers(rounded, made[self.numbers]) * scales
        return finish(y, made["weight_scale"].t(), made.get("bias"), x.dtype)


def finish(y: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """y * scales + bias in float32, rounded once to ``dtype``. y [T, out], scales [1, out]."""
    y = y * scales if y.dtype != torch.float32 else y.mul_(scales)
    if bias is not None:
        y += bias
    return y.to(dtype)
