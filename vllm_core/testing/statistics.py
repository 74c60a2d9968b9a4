"""Whether tokens look drawn from a distribution: a chi-square bound without a statistics package."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 5.0  # cells with fewer expected draws are joined


def misfit(drawn: Tensor, probabilities: Tensor) -> str:
    """How ``drawn`` (int64 [N]) contradicts ``probabilities`` [cells]; "" if it does not.

    A right sampler is called wrong once in 10,000 times.
    """
    expected = probabilities.double() / probabilities.double().sum() * len(drawn)
    counts = torch.bincount(drawn, minlength=len(expected)).double()
    impossible = int(counts[expected == 0].sum())
    if impossible:
        return f"{impossible} of {len(drawn)} draws have probability 0"
    small = expected < SMALL
    if small.any():
        expected = torch.cat((expected[~small], expected[small].sum()[None]))
        counts = torch.cat((counts[~small], counts[small].sum()[None]))
    expected, counts = expected[expected > 0], counts[expected > 0]
    found = float(((counts - expected) ** 2 / expected).sum())
    most = bound(len(expected))
    return f"chi-square is {found:.1f}, {len(expected)} cells allow {most:.1f}" if found > most else ""


def bound(cells: int, z: float = 3.719) -> float:
    """What chi-square with ``cells`` - 1 degrees of freedom exceeds once in 10,000 (Wilson and Hilferty, 1931)."""
    n = cells - 1
    return n * (1 - 2 / (9 * n) + z * (2 / (9 * n)) ** 0.5) ** 3 if n else 0.0
