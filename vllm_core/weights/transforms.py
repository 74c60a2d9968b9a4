"""Tensors stored otherwise than the parameters they fill, read by the slice all the same.

A transform turns what a rank needs of a parameter's slots into rectangles of the checkpoint
tensor, and says what is to be done with each rectangle once it is read. No torch at import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.weights import Slices

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


@attrs.frozen
class Part:
    """One rectangle of a checkpoint tensor on its way to a slot."""

    slot: str
    shape: Shape  # of the whole slot, as this checkpoint has it
    read: Slices  # of the checkpoint tensor
    arrange: Callable[[Tensor], Tensor] | None = None  # makes the slot's ``source`` range of what was read


class Transform(Protocol):
    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        """Parts of a tensor of this shape; ``slot`` is what the rule says, ``slots`` what the parameter has.

        ``ValueError`` says why the shape cannot be right.
        """


def full(slices: Slices, shape: Shape) -> Slices:
    """The same range with every dimension written out."""
    return slices or tuple((0, n) for n in shape)


def extent(slices: Slices, shape: Shape) -> Shape:
    """Shape of the part that the slices cut out."""
    return tuple(stop - start for start, stop in full(slices, shape))


def size(slices: Slices, shape: Shape) -> int:
    return prod(extent(slices, shape))


def run_of(slices: Slices, shape: Shape) -> int | None:
    """The first element of a part that is one run of a row-major tensor; None if it is several."""
    start, stride, whole = 0, 1, True
    for (first, last), n in zip(reversed(full(slices, shape)), reversed(shape), strict=True):
        if not whole and last - first != 1:
            return None
        start, stride, whole = start + first * stride, stride * n, whole and last - first == n
    return start


def drop_first(t: Tensor) -> Tensor:
    """Without the leading dimension of 1: as an ``arrange``, it moves no numbers."""
    return t.squeeze(0)


def _inner(inner: Transform | None, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
    if inner is not None:
        return inner.parts(shape, slot, slots)
    source = slots[slot].source if slot in slots else ()
    return [Part(slot, shape, full(source, shape))]


def _chain(first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    return first if then is None else lambda t: then(first(t))


def _wanted(names: tuple[str, ...], slots: Mapping[str, SlotRange]) -> list[tuple[str, SlotRange]]:
    """The named slots that this rank holds."""
    return [(name, slots[name]) for name in names if name in slots]


def _need_all(names: tuple[str, ...], slots: Mapping[str, SlotRange]) -> None:
    if missing := [n for n in names if n not in slots]:
        raise ValueError(f"the rule splits it into {', '.join(names)}; the parameter has no {', '.join(missing)}")


def rule_slot(transform: Transform | None, slot: str) -> str:
    """What a rule with this transform has as its own slot if it fills ``slot``: fused tensors are split without one."""
    match transform:
        case Stacked(inner=inner) if slot.partition(".")[0].isdigit():
            return rule_slot(inner, slot.partition(".")[2])
        case Transposed(inner=inner):
            return rule_slot(inner, slot)
        case Split(slots=slots) | Interleaved(slots=slots) if slot in slots:
            return ""
    return slot


@attrs.frozen
class Plain:
    """Stored as it is used."""

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        return _inner(None, shape, slot, slots)


@attrs.frozen
class Transposed:
    """Stored [..., in, out] where the parameter is [..., out, in]. Vectors are left as they are."""

    inner: Transform | None = None

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        if len(shape) < 2:
            return _inner(self.inner, shape, slot, slots)

        def swap(x: tuple) -> tuple:
            return (*x[:-2], x[-1], x[-2])

        return [
            Part(p.slot, p.shape, swap(p.read), _chain(lambda t: t.transpose(-1, -2), p.arrange))
            for p in _inner(self.inner, swap(shape), slot, slots)
        ]


@attrs.frozen
class Split:
    """Several slots stored one after the other along ``dim`` (a fused q, k, v or gate, up)."""

    slots: tuple[str, ...]
    dim: int = 0

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        _need_all(self.slots, slots)
        sizes = [slots[name].shape[self.dim] for name in self.slots]
        if sum(sizes) != shape[self.dim]:
            each = " + ".join(f"{name} {n}" for name, n in zip(self.slots, sizes, strict=True))
            raise ValueError(f"dimension {self.dim} should be {each} = {sum(sizes)}")
        parts, at = [], 0
        for (name, range_), n in zip(_wanted(self.slots, slots), sizes, strict=True):
            whole = (*shape[: self.dim], n, *shape[self.dim + 1 :])
            read = list(full(range_.source, whole))
            start, stop = read[self.dim]
            read[self.dim] = (at + start, at + stop)
            parts.append(Part(name, whole, tuple(read)))
            at += n
        return parts


@attrs.frozen
class Interleaved:
    """Slots of equal size that take turns along ``dim``: ``group`` rows of the first, ``group`` of the next, ...

    ``group`` 1 alternates row by row; a head size stores [heads, 3, head_dim] as GPT-NeoX does.
    """

    slots: tuple[str, ...]
    group: int = 1
    dim: int = 0

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        _need_all(self.slots, slots)
        ways, turn = len(self.slots), len(self.slots) * self.group
        if shape[self.dim] % turn:
            raise ValueError(f"dimension {self.dim} should be a multiple of {ways} x {self.group} = {turn}")
        return [self._part(n, name, range_, shape) for n, (name, range_) in enumerate(_wanted(self.slots, slots))]

    def _part(self, n: int, name: str, range_: SlotRange, shape: Shape) -> Part:
        ways, group, dim = len(self.slots), self.group, self.dim
        whole = (*shape[:dim], shape[dim] // ways, *shape[dim + 1 :])
        read = list(full(range_.source, whole))
        start, stop = read[dim]
        first, last = start // group, -(-stop // group)  # whole turns that hold the range
        read[dim] = (first * group * ways, last * group * ways)

        def pick(t: Tensor) -> Tensor:
            turns = t.unflatten(dim, (last - first, ways, group)).select(dim + 1, n).flatten(dim, dim + 1)
            return turns.narrow(dim, start - first * group, stop - start)

        return Part(name, whole, tuple(read), pick)


@attrs.frozen
class RotaryPairs:
    """Rows of each head stored in rotary pairs (0, d/2, 1, d/2 + 1, ...), used as two halves.

    That is how GGUF files and Meta's own checkpoints of Llama keep queries and keys.
    """

    head_dim: int

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        d = self.head_dim
        if shape[0] % d:
            raise ValueError(f"dimension 0 should be a multiple of the head size {d}")
        read = list(full(slots[slot].source if slot in slots else (), shape))
        start, stop = read[0]
        first, last = start // d, -(-stop // d)  # whole heads that hold the range
        read[0] = (first * d, last * d)

        def halves(t: Tensor) -> Tensor:
            heads = t.unflatten(0, (last - first, d // 2, 2)).transpose(1, 2).flatten(0, 2)
            return heads.narrow(0, start - first * d, stop - start)

        return [Part(slot, shape, tuple(read), halves)]


@attrs.frozen
class Stacked:
    """Experts (or any modules) stored in one tensor, [number, ...]; slots are named ``"{n}"`` or ``"{n}.inner"``.

    Numbers for which the parameter has no slot belong to other ranks and are not read.
    """

    inner: Transform | None = None

    def parts(self, shape: Shape, slot: str, slots: Mapping[str, SlotRange]) -> list[Part]:
        found: list[Part] = []
        numbers = sorted({int(name.partition(".")[0]) for name in slots})
        if numbers and numbers[-1] >= shape[0]:
            raise ValueError(f"dimension 0 holds {shape[0]}, the parameter wants number {numbers[-1]}")
        for n in numbers:
            own = {name.partition(".")[2]: r for name, r in slots.items() if name.partition(".")[0] == str(n)}
            for p in _inner(self.inner, shape[1:], slot, own):
                name = f"{n}.{p.slot}" if p.slot else str(n)
                found.append(Part(name, p.shape, ((n, n + 1), *p.read), _chain(drop_first, p.arrange)))
        return found
