"""Parameters that a method asks for: made when a layer is bound, some of them there only while it is filled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.plan import Plan
from vllm_core.interfaces.quantization import ParamSpec
from vllm_core.layers.base import Layer
from vllm_core.layers.shards import Shard


class FilledLayer(Layer):
    """A layer whose ``method`` makes its parameters, and hears of their filling."""

    method: Any  # interfaces.quantization.LinearMethod or EmbeddingMethod; None: the layer's own parameters
    passing: Mapping[str, tuple[int, ...]] = {}  # parameters that are not kept -> their shapes

    def make_params(self, plan: Plan, specs: Iterable[ParamSpec], inputs: Shard, outputs: Mapping[str, Shard]) -> None:
        """``inputs`` and ``outputs`` (slot -> shard) are what this rank holds of the matrix."""
        passing = {}
        for spec in specs:
            shape = spec.shape if spec.kept else (0,)
            self.make_parameter(spec.name, shape, spec.dtype, plan.torch_device)
            if not spec.kept:
                passing[spec.name] = spec.shape
            if spec.stored:
                self.loads[spec.name] = slot_ranges(spec, inputs, outputs)
        self.passing = passing

    def filling(self) -> None:
        """This layer's weights are about to be read, perhaps again: make room for what was given back."""
        for name, shape in self.passing.items():
            if (parameter := self._parameters[name]) is not None:
                parameter.data = torch.empty(shape, dtype=parameter.dtype, device=parameter.device)
        if callable(hook := getattr(self.method, "filling", None)):
            hook(self)

    def filled(self) -> None:
        """They were read: give back what is not kept."""
        if callable(hook := getattr(self.method, "filled", None)):
            hook(self)
        for name in self.passing:
            if (parameter := self._parameters[name]) is not None:
                parameter.data = parameter.new_empty(0)


def methods_of(*layers: FilledLayer) -> str:
    """By what a fused layer's matrices are multiplied: one name if all of them are by the same, else all, with +.

    A method whose matrices are int8 numbers with a scale for each output (`LinearMethod`) is "ScaledLinear".
    """
    return "+".join(dict.fromkeys(_name(layer.method) for layer in layers))


def _name(method: object) -> str:
    return "ScaledLinear" if hasattr(method, "scaled") else type(method).__name__


def slot_ranges(spec: ParamSpec, inputs: Shard, outputs: Mapping[str, Shard]) -> dict[str, SlotRange]:
    """Where each slot's checkpoint tensor goes in this parameter."""
    found, at = {}, 0
    for slot, out in outputs.items():
        if spec.slots is not None and slot not in spec.slots:
            continue
        full, source, target = list(spec.shape), [(0, n) for n in spec.shape], [(0, n) for n in spec.shape]
        for dim, pack, shard, start in (
            (spec.out_dim, spec.out_pack, out, at),
            (spec.in_dim, spec.in_pack, inputs, 0),
        ):
            if dim is None:
                continue
            if start % pack or shard.start % pack or (shard.stop % pack and shard.stop != shard.full):
                raise ValueError(
                    f"parameter {spec.name!r}: {shard.start} to {shard.stop} of {shard.full} elements, put at {start},"
                    f" do not lie on the borders of its groups of {pack}; use fewer ranks"
                )
            first, count = shard.start // pack, -(-shard.stop // pack) - shard.start // pack
            full[dim] = -(-shard.full // pack)
            source[dim] = (first, first + count)
            target[dim] = (start // pack, start // pack + count)
        found[slot] = SlotRange(tuple(full), tuple(source), tuple(target))
        at += out.size
    return found
