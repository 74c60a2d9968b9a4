"""`interfaces.quantization.LinearMethod` for 8-bit weights, with and without 8-bit inputs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vllm_core.interfaces.plan import Plan
from vllm_core.interfaces.quantization import LinearShape, ParamSpec
from vllm_core.ops import OPS
from vllm_plugin_int8.products import Product, integers, product_of
from vllm_plugin_int8.rounding import round_rows

# Weights that are rounded at a time. Larger temporaries on a CPU stay with the allocator: 180 MiB of SmolLM2-135M's
# start with 1 << 22.
PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
MOST_INPUTS = (2**31 - 1) // 128**2  # so many products of two 8-bit numbers fit into 32 bits


class Source(enum.Enum):
    """What the checkpoint holds of a weight."""

    DENSE = "numbers of any float format in `weight`"
    INT8 = "whole numbers in `weight`, scales in `weight_scale`"
    PACKED = "four numbers an int32 in `weight_packed`, scales in `weight_scale`"


class Int8Numbers:
    """Weights are whole numbers from -128 to 127 and a float32 scale for each output: y = (x N^T) * scales + b."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.numbers = "weight" if source is Source.INT8 else "weight_int8"

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        out, inputs, source = sum(shape.out_sizes), shape.in_size, self.source
        stored = source is not Source.DENSE
        specs = [
            ParamSpec(name=self.numbers, shape=(out, inputs), dtype=torch.int8, stored=source is Source.INT8),
            ParamSpec(name="weight_scale", shape=(out, 1), dtype=torch.float32, in_dim=None, stored=stored),
        ]
        if source is Source.DENSE:
            specs.append(ParamSpec(name="weight", shape=(out, inputs), dtype=dtype, kept=False))
        elif source is Source.PACKED:
            packed = (out, -(-inputs // 4))
            specs += [
                ParamSpec(name="weight_packed", shape=packed, dtype=torch.int32, in_pack=4, kept=False),
                ParamSpec(name="weight_shape", shape=(2,), dtype=torch.int64, out_dim=None, in_dim=None, kept=False),
            ]
        if shape.bias:
            specs.append(ParamSpec(name="bias", shape=(out,), dtype=dtype, in_dim=None))
        return specs

    def filled(self, layer: nn.Module) -> None:
        """Make the numbers of what was read, which is given back after this."""
        made: Any = layer._parameters
        if self.source is Source.DENSE:
            step = max(1, PIECE[made["weight"].device.type] // made["weight"].shape[1])
            places = (made[name].split(step) for name in ("weight", "weight_int8", "weight_scale"))
            for dense, numbers, scales in zip(*places, strict=True):
                found = round_rows(dense)
                numbers.copy_(found[0])
                scales.copy_(found[1])
        elif self.source is Source.PACKED:
            unsigned = made["weight_packed"].view(torch.uint8)[:, : made["weight_int8"].shape[1]]
            made["weight_int8"].view(torch.uint8).copy_(unsigned).bitwise_xor_(128)  # less 128

    def loaded(self, layer: nn.Module) -> None:
        """Everything was done in ``filled``."""


class Int8Weights(Int8Numbers):
    """The inputs are multiplied as they are."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.product: Product | None = None
        self.whole: Callable[..., Tensor] | None = None  # numbers, scales and bias in one, where a kernel is offered

    def ask(self, plan: Plan, shape: LinearShape) -> None:
        name = "scaled_linear"
        found = plan.op(name, in_size=shape.in_size, out_size=sum(shape.out_sizes), bias=shape.bias)
        self.whole = found if found is not OPS[name].reference else None

    def scaled(self, layer: nn.Module) -> tuple[Tensor, Tensor]:
        made: Any = layer._parameters
        return made[self.numbers], made["weight_scale"].view(-1)

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made: Any = layer._parameters  # a plain dict: nn.Module's own attribute lookup is several times slower
        numbers = made[self.numbers]
        if self.whole is not None:
            return self.whole(x, numbers, made["weight_scale"].view(-1), made.get("bias"))
        if self.product is None:
            self.product = product_of(x.device, x.dtype, x.shape[-1])
        return finish(self.product(x, numbers, made["weight_scale"]), made.get("bias"), x.dtype)


class Int8WeightsAndInputs(Int8Numbers):
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
        y = (integers(rounded, made[self.numbers]) * scales).mul_(made["weight_scale"].t())
        return finish(y, made.get("bias"), x.dtype)


def finish(y: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """y + bias, of ``dtype``. y [T, out] may be written to."""
    return (y if bias is None else y.add_(bias)).to(dtype)
