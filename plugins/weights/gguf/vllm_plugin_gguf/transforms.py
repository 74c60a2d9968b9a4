"""How llama.cpp's converter rearranges rows, beside the rotary pairs and the transposition that the core knows."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.weights.transforms import Part, Shape, full


@attrs.frozen
class Turns:
    """``ways`` matrices stored one after the other, used taking turns: ``group`` rows of each."""

    ways: int
    group: int

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        if shape[0] % (self.ways * self.group):
            raise ValueError(f"dimension 0 should be a multiple of {self.ways} x {self.group}")
        source = full(slots[slot].source if slot in slots else (), shape)
        order = torch.arange(shape[0]).view(self.ways, -1, self.group).transpose(0, 1).flatten()
        wanted = order[slice(*source[0])]
        return [Part(slot, shape, ((0, shape[0]), *source[1:]), lambda t: t[wanted])]


@attrs.frozen
class Share:
    """The ``number``-th of ``ways`` equal matrices that are stored one after the other."""

    number: int
    ways: int

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        if shape[0] % self.ways:
            raise ValueError(f"dimension 0 should be a multiple of {self.ways}")
        whole = (shape[0] // self.ways, *shape[1:])
        source = full(slots[slot].source if slot in slots else (), whole)
        start = self.number * whole[0]
        return [Part(slot, whole, ((start + source[0][0], start + source[0][1]), *source[1:]))]
