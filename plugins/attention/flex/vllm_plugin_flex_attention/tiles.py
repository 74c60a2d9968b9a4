"""What torch is told about its CUDA kernels where its own choice fails. Figures are those of torch 2.11 on an H200."""

from __future__ import annotations

from torch import Tensor

MASK_BLOCK = 128  # queries and keys of a block of the mask, which no tile of the kernel may exceed
TORCH_FITS = 512  # bytes of a token's key and value in a head: up to here torch's tiles fit shared memory
KEYS_BYTES = 32 << 10  # of a tile of keys and values beyond


def tiles(q: Tensor, k: Tensor, v: Tensor) -> dict[str, int | str]:
    """Options of the kernel for q [S, H, Q, k_dim], k and v [S, KV, L, dim].

    One query of one sequence is left to torch's kernel for decoding, which splits the keys. Torch
    would use it for a prompt of up to 127 queries, too, with a tile of all queries of all heads that
    share keys; a tile larger than the mask's blocks is no choice, and then there is none.
    """
    group = q.shape[1] // k.shape[1]
    if q.shape[0] == 1 and q.shape[2] == 1 and group & (group - 1) == 0 and group <= MASK_BLOCK:
        return {}
    row = 2 * _power_of_two(max(q.shape[3], v.shape[3])) * q.element_size()
    if row <= TORCH_FITS:
        return {"BACKEND": "TRITON"}
    # Heads of 512 in float32 take 194 of the 227 KiB that an H200 has for a tile of queries and two of keys.
    queries, keys = (64 if row <= 1024 else 32), max(16, KEYS_BYTES // row)
    return {"BACKEND": "TRITON", "BLOCK_M": queries, "BLOCK_N": keys, "num_stages": 2, "num_warps": 4}


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
