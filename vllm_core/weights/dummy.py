"""Random weights: for measuring speed and memory without a checkpoint.

A value depends on the seed, the parameter's path and its place in the whole tensor only, so a
model has the same weights however it is split over ranks.
"""

from __future__ import annotations

import zlib
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from vllm_core.interfaces.weights import Slices
from vllm_core.weights.load import call, finish, loading_layers, place, single_threaded
from vllm_core.weights.transforms import extent, full, run_of

if TYPE_CHECKING:
    from torch import Tensor, nn

# A prime, so that rows of usual lengths do not repeat: values are read from this block round and round.
_BLOCK = 1_048_573
_SLAB = 16 * _BLOCK  # elements filled at once where only a part of them is wanted


@torch.inference_mode()
def fill_dummy(model: nn.Module, seed: int = 0) -> None:
    """Fill every parameter of a bound model with random numbers that keep activations finite.

    Matrices get a standard deviation of 1 / sqrt(inputs), vectors called ``weight`` (norms) values
    near 1, other vectors values near 0; integers and bytes are drawn from 0 to 15.
    """
    with single_threaded():
        _fill_layers(model, seed)
    finish(model)


def _fill_layers(model: nn.Module, seed: int) -> None:
    noise = _Noise(seed)
    done: set[int] = set()
    for path, layer in loading_layers(model).items():
        if id(layer) in done:
            continue
        done.add(id(layer))
        call(layer, "filling")
        for name, slots in layer.loads.items():
            parameter = getattr(layer, name)
            for slot, range_ in slots.items():
                offset = zlib.crc32(f"{path}.{name}.{slot}".encode()) % _BLOCK
                target = place(parameter, range_).view(extent(range_.source, range_.shape))
                values = noise.like(parameter, *_scale(parameter, name, range_.shape))
                _fill(target, range_.shape, full(range_.source, range_.shape), values, offset)
        call(layer, "filled")


def _scale(parameter: Tensor, name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """What a tensor's noise is multiplied by, and what is added then."""
    if not parameter.is_floating_point() or parameter.element_size() < 2:
        return 1.0, 0.0  # 8-bit floats: their scales make them small
    if len(shape) > 1:
        return shape[-1] ** -0.5, 0.0
    return 0.02, 1.0 if "weight" in name or "scale" in name else 0.0


class _Noise:
    """A block of random numbers, twice in a row so that any _BLOCK neighbours are a slice; made once for each use."""

    def __init__(self, seed: int) -> None:
        block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(seed)).clamp_(-4, 4)
        self._block = torch.cat([block, block])
        self._made: dict[Any, Tensor] = {}

    def like(self, parameter: Tensor, factor: float, summand: float) -> Tensor:
        """[2 * _BLOCK] in the parameter's dtype, on its device: filling is then a plain copy."""
        key = (parameter.device, parameter.dtype, factor, summand)
        if key not in self._made:
            block = self._block.to(parameter.device)
            if parameter.is_floating_point():
                made = block.to(parameter.dtype)
                if factor != 1:
                    made = made.mul(factor)
                self._made[key] = made.add(summand) if summand else made
            else:
                self._made[key] = (block.abs() * 1000).long().remainder(16).to(parameter.dtype)
        return self._made[key]


def _fill(target: Tensor, shape: tuple[int, ...], source: Slices, noise: Tensor, offset: int) -> None:
    """``target`` becomes the ``source`` part of a tensor of this shape whose element i is noise[(offset + i) % _BLOCK].

    A few copies, however large it is: starting a thousand would take a device longer than the numbers do.
    """
    first = run_of(source, shape)
    if first is not None and target.is_contiguous():
        _fill_run(target.view(-1), noise, (offset + first) % _BLOCK)
        return
    row = prod(shape[1:])
    step = max(1, _SLAB // max(1, row))
    for at in range(0, len(target), step):  # whole rows beside it, then the part of them
        count, begin = min(step, len(target) - at), source[0][0] + at
        if count == 1 and row > _SLAB:
            _fill(target[at], shape[1:], source[1:], noise, (offset + begin * row) % _BLOCK)
            continue
        rows = target.new_empty(count, *shape[1:])
        _fill_run(rows.view(-1), noise, (offset + begin * row) % _BLOCK)
        target[at : at + count] = rows[(slice(None), *(slice(a, b) for a, b in source[1:]))]


def _fill_run(target: Tensor, noise: Tensor, offset: int) -> None:
    """``target`` [N] becomes what follows ``offset`` in the noise, round and round."""
    values, whole = noise[offset : offset + _BLOCK], len(target) // _BLOCK
    if whole:
        target[: whole * _BLOCK].view(whole, _BLOCK).copy_(values.expand(whole, _BLOCK))
    rest = target[whole * _BLOCK :]
    rest.copy_(values[: len(rest)])
