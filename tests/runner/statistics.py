"""A chi-square bound without a statistics package."""

from __future__ import annotations

import torch


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Pearson's statistic over the cells with expected > 0; the others must be empty."""
    counts, expected = counts.double(), expected.double()
    assert counts[expected == 0].sum() == 0
    cells = expected > 0
    return float(((counts - expected)[cells] ** 2 / expected[cells]).sum())


def bound(cells: int, z: float = 3.7) -> float:
    """The value that chi-square with ``cells`` - 1 degrees of freedom passes once in 10,000 (Wilson and Hilferty)."""
    n = cells - 1
    return n * (1 - 2 / (9 * n) + z * (2 / (9 * n)) ** 0.5) ** 3


def agrees(tokens: torch.Tensor, probabilities: torch.Tensor) -> bool:
    """Whether tokens [N] look drawn from probabilities [V]. Cells expected below 5 are joined."""
    expected = probabilities.double() * len(tokens)
    counts = torch.bincount(tokens, minlength=len(expected)).double()
    assert counts[probabilities == 0].sum() == 0
    small = expected < 5
    if small.any():
        expected = torch.cat((expected[~small], expected[small].sum()[None]))
        counts = torch.cat((counts[~small], counts[small].sum()[None]))
    return chi_square(counts, expected) < bound(int((expected > 0).sum()))
