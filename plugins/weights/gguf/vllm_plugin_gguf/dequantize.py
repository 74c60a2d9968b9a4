"""Packed blocks to numbers, bit for bit as ``gguf.quants.dequantize`` does it.

The usual types are written out with torch, for any device: about 1,000 million numbers a second
and core for types of 32 numbers a block, where the library's general code does 37. Rarer types
(IQ, TQ, MXFP4) go through the library, while a file is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf import k_blocks, small_blocks

Type = GGMLQuantizationType
PLAIN = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16, Type.F64: torch.float64}
"""Types that are stored as torch has them."""

OWN: dict[Type, Callable[[Tensor, Tensor], None]] = {
    Type.Q4_0: small_blocks.q4_0,
    Type.Q4_1: small_blocks.q4_1,
    Type.Q5_0: small_blocks.q5_0,
    Type.Q5_1: small_blocks.q5_1,
    Type.Q8_0: small_blocks.q8_0,
    Type.Q2_K: k_blocks.q2_k,
    Type.Q3_K: k_blocks.q3_k,
    Type.Q4_K: k_blocks.q4_k,
    Type.Q5_K: k_blocks.q5_k,
    Type.Q6_K: k_blocks.q6_k,
}
"""Blocks uint8 [B, bytes] -> out float32 [B, numbers]."""

_STEP = 1 << 19  # numbers at a time: 2 MiB, which stay in the cache between passes


def dequantize_into(packed: Tensor, kind: Type, out: Tensor) -> None:
    """packed uint8 [..., bytes] of whole rows, contiguous -> out [..., numbers], contiguous, of any float dtype."""
    if kind in PLAIN:
        out.copy_(packed.view(PLAIN[kind]).view(out.shape))
        return
    numbers, size = GGML_QUANT_SIZES[kind]
    blocks, rows, step = packed.view(-1, size), out.view(-1, numbers), _STEP // numbers
    scratch = None
    if kind in OWN and out.dtype != torch.float32:
        scratch = torch.empty(min(step, len(blocks)), numbers, device=packed.device)
    for i in range(0, len(blocks), step):
        part, into = blocks[i : i + step], rows[i : i + step]
        if kind not in OWN:
            into.copy_(torch.from_numpy(_library(part, kind)))
        elif scratch is None:
            OWN[kind](part, into)
        else:
            OWN[kind](part, scratch[: len(part)])
            into.copy_(scratch[: len(part)])


@cache
def readable(kind: Type) -> bool:
    """Whether anybody here can dequantize the type."""
    if kind in PLAIN or kind in OWN:
        return True
    try:
        gguf.quants.dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except (NotImplementedError, KeyError, ValueError):
        return False
    return True


def refuse_unreadable(name: str, kind: Type, file: object) -> None:
    if not readable(kind):
        known = ", ".join(t.name for t in [*PLAIN, *OWN])
        raise CheckpointError(
            f"{file}: tensor {name!r} is of GGUF type {kind.name}, which neither this plugin nor the installed gguf"
            f" package can dequantize\n  known   {known}, and what gguf.quants.dequantize takes\n"
            "  instead a file of another type, such as Q8_0"
        )


def _library(packed: Tensor, kind: Type) -> np.ndarray:
    with np.errstate(all="ignore"):  # scales of any bits: infinities are what they are
        return gguf.quants.dequantize(packed.cpu().numpy(), kind)
