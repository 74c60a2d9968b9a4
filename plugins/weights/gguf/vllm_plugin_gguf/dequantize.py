"""Packed blocks to float32, bit for bit as ``gguf.quants.dequantize`` does it.

The block layouts are those of ggml (ggml-common.h, ggml-quants.c). The usual types are written out
here: 1,000 million numbers a second and core, where the library's general code does 37. Other
types go through the library.
"""

from __future__ import annotations

from collections.abc import Callable

import gguf
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from vllm_core.weights.errors import CheckpointError

Type = GGMLQuantizationType
PLAIN = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16, Type.F64: torch.float64}
"""Types that are stored as torch has them."""

_STEP = 16_384  # blocks at a time: half a million numbers, which stay in the cache between passes


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte ``at`` of each block, as float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, out: Tensor) -> None:
    """Low halves of the bytes first, then the high halves."""
    out[:, :16] = packed & 15
    out[:, 16:] = packed >> 4


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    """18 bytes: scale, 16 x 2 numbers from 0 to 15 that stand for -8 to 7."""
    _nibbles(blocks[:, 2:], out)
    out.sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    """20 bytes: scale, minimum, 16 x 2 numbers from 0 to 15."""
    _nibbles(blocks[:, 4:], out)
    out.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    """34 bytes: scale, 32 signed bytes."""
    out.copy_(blocks[:, 2:].view(torch.int8))
    out.mul_(_half(blocks, 0))


_FAST: dict[Type, Callable[[Tensor, Tensor], None]] = {Type.Q4_0: _q4_0, Type.Q4_1: _q4_1, Type.Q8_0: _q8_0}


def dequantize_into(packed: Tensor, kind: Type, out: Tensor) -> None:
    """packed uint8 [..., bytes] of whole rows, contiguous -> out [..., numbers], contiguous, of any float dtype."""
    if kind in PLAIN:
        out.copy_(packed.view(PLAIN[kind]).view(out.shape))
        return
    if kind not in _FAST:
        out.copy_(torch.from_numpy(_library(packed, kind)).view(out.shape))
        return
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks, rows = packed.view(-1, size), out.view(-1, numbers)
    scratch = None if out.dtype == torch.float32 else torch.empty(min(_STEP, len(blocks)), numbers)
    for i in range(0, len(blocks), _STEP):
        part = blocks[i : i + _STEP]
        if scratch is None:
            _FAST[kind](part, rows[i : i + _STEP])
        else:
            _FAST[kind](part, scratch[: len(part)])
            rows[i : i + _STEP] = scratch[: len(part)]


def _library(packed: Tensor, kind: Type):
    try:
        return gguf.quants.dequantize(packed.numpy(), kind)
    except (NotImplementedError, KeyError) as e:
        known = ", ".join(t.name for t in [*PLAIN, *_FAST])
        raise CheckpointError(
            f"weights of GGUF type {kind.name} cannot be dequantized: neither this plugin ({known}) nor the installed"
            " gguf package knows how; use a file of another type, such as Q8_0"
        ) from e
