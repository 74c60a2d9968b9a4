"""Q4_K and Q6_K blocks of given numbers, which the gguf package only reads: the plainest choice of scales."""

from __future__ import annotations

import numpy as np


def _rounded(x: np.ndarray, unit: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.rint(x / np.where(unit == 0, 1, unit)).clip(low, high)


def _half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def q6_k(weight: np.ndarray) -> np.ndarray:
    """float32 [rows, n x 256] -> uint8 [rows, n x 210]: 16 parts of 16 numbers, each a scale of 8 bits."""
    parts = weight.reshape(-1, 16, 16)
    scales = np.abs(parts).max(-1) / 31
    d = _half(scales.max(-1, keepdims=True) / 127)
    small = _rounded(scales, d, 0, 127)
    q = (_rounded(parts, (d * small)[..., None], -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (q[:, :, :2] & 15) | ((q[:, :, 2:] & 15) << 4)
    high = np.bitwise_or.reduce((q >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2)
    pieces = (low, high, small.astype(np.int8).view(np.uint8), d.astype(np.float16).view(np.uint8))
    return np.concatenate([p.reshape(len(parts), -1) for p in pieces], -1).reshape(len(weight), -1)


def q4_k(weight: np.ndarray) -> np.ndarray:
    """float32 [rows, n x 256] -> uint8 [rows, n x 144]: 8 parts of 32 numbers, each a scale and a minimum of 6 bits."""
    parts = weight.reshape(-1, 8, 32)
    minima = np.maximum(-parts.min(-1), 0)
    scales = (parts.max(-1) + minima).clip(0) / 15
    d, dmin = (_half(x.max(-1, keepdims=True) / 63) for x in (scales, minima))
    sc, m = _rounded(scales, d, 0, 63).astype(np.uint8), _rounded(minima, dmin, 0, 63).astype(np.uint8)
    q = _rounded(parts + (dmin * m)[..., None], (d * sc)[..., None], 0, 15).astype(np.uint8).reshape(-1, 4, 2, 32)
    first = [x[:, :4] | ((x[:, 4:] >> 4) << 6) for x in (sc, m)]
    mixed = (sc[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)
    pieces = (d.astype(np.float16).view(np.uint8), dmin.astype(np.float16).view(np.uint8), *first, mixed,
              q[:, :, 0] | (q[:, :, 1] << 4))  # fmt: skip
    return np.concatenate([p.reshape(len(parts), -1) for p in pieces], -1).reshape(len(weight), -1)
