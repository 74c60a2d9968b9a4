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
from vllm_core.weights.transforms import extent, full

if TYPE_CHECKING:
    from torch import Tensor, nn

# A prime, so that rows of usual lengths do not repeat: values are read from this block round and round.
_BLOCK = 1_048_573


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
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(_BLOCK, generator=generator).clamp_(-4, 4)
    noise = torch.cat([noise, noise])  # any _BLOCK neighbours are a slice
    made: dict[Any, Tensor] = {}
    done: set[int] = set()
    for path, layer in loading_layers(model).items():
        if id(layer) in done:
            continue
        done.add(id(layer))
        call(layer, "filling")
        for name, slots in layer.loads.items():
            parameter = getattr(layer, name)
            key = (parameter.device, parameter.dtype)
            if key not in made:
                made[key] = _values(noise, parameter)
            for slot, range_ in slots.items():
                offset = zlib.crc32(f"{path}.{name}.{slot}".encode()) % _BLOCK
                target = place(parameter, range_)
                wanted = extent(range_.source, range_.shape)
                _fill(target.view(wanted), range_.shape, full(range_.source, range_.shape), made[key], offset)
                if target.is_floating_point():
                    _scale(target, name, range_.shape)
        call(layer, "filled")


def _values(noise: Tensor, like: Tensor) -> Tensor:
    """The block in the parameter's dtype, on its device: filling is then a plain copy."""
    if like.is_floating_point():
        return noise.to(like.device).to(like.dtype)
    return (noise.abs() * 1000).long().remainder(16).to(like.device).to(like.dtype)


def _fill(target: Tensor, shape: tuple[int, ...], source: Slices, noise: Tensor, offset: int) -> None:
    """``target`` becomes the ``source`` part of a tensor of this shape whose values run through the noise."""
    row = prod(shape[1:])
    if not shape:
        target.copy_(noise[offset])
        return
    start, stop = source[0]
    rest = source[1:]
    if row > _BLOCK:
        for n in range(start, stop):
            _fill(target[n - start], shape[1:], rest, noise, (offset + n * row) % _BLOCK)
        return
    step = max(1, _BLOCK // max(1, row))
    for first in range(start, stop, step):
        count = min(step, stop - first)
        at = (offset + first * row) % _BLOCK
        values = noise[at : at + count * row].view(count, *shape[1:])
        target[first - start : first - start + count] = values[(slice(None), *(slice(a, b) for a, b in rest))]


def _scale(target: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if target.element_size() < 2:
        return  # 8-bit floats: their scales make them small
    if len(shape) > 1:
        target.mul_(shape[-1] ** -0.5)
    else:
        target.mul_(0.02)
        if "weight" in name or "scale" in name:
            target.add_(1.0)
