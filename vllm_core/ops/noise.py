"""Counter-based noise: a number in [0, 1) that depends on a seed and a position, and on nothing else.

So a request's tokens do not depend on which requests share its steps, on how its prompt was
cut into chunks, on preemption, or on which step a token is sampled in.
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
SAMPLE, ACCEPT, GUESS = 0, 1, 2
"""What a number is for: drawing the token of a position, accepting a draft for it, or drawing that draft."""

_STREAMS = 4


def uniform(seed: Tensor, position: Tensor, stream: int = SAMPLE) -> Tensor:
    """float64 in [0, 1 - 2**-48]; seed and position int64 of one shape.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195), once over
    the seed and once over the counter, so that neighbouring seeds share no sequence.
    """
    mixed = _mix(_mix(seed + _signed(GOLDEN)) + (position * _STREAMS + stream) * _signed(GOLDEN))
    return _shift(mixed, 16).double() * 2.0**-48


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: int64's own copies the sign into the upper bits."""
    return torch.bitwise_and(z >> bits, (1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with these 64 bits."""
    return number - (1 << 64) if number >> 63 else number
