"""How far logits are from the reference's, in shares of the reference's own range."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distance(got: Tensor, want: Tensor) -> float:
    """Largest |got - want| over the range of ``want``; infinite if ``got`` is not finite. Both [T, vocab_size]."""
    if got.shape != want.shape:
        raise AssertionError(f"logits are {list(got.shape)}, the reference's {list(want.shape)}")
    got = got.detach().cpu().double()
    if not torch.isfinite(got).all():
        return math.inf
    return (_errors(got, want).max() / _range(want)).item()


def assert_agree(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """Logits [T, vocab_size] agree at every position."""
    __tracebackhide__ = True  # pytest then shows the test
    far = distance(got, want)
    if far <= tolerance:
        return
    got = got.detach().cpu().double()
    if far == math.inf:
        bad = (~torch.isfinite(got)).any(-1)
        says = "not finite (pages start as NaN: was something read that was never written?)"
    else:
        bad = _errors(got, want).amax(-1) > tolerance * _range(want)
        says = f"off by up to {far:.1e} of the reference's range; allowed are {tolerance:.0e}"
    where = bad.nonzero().flatten().tolist()
    shown = ", ".join(map(str, where[:8])) + (", ..." if len(where) > 8 else "")
    raise AssertionError(f"{what}: logits are {says}\n  at {len(where)} of {len(got)} positions: {shown}")


def assert_differ(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """The comparison above would fail."""
    __tracebackhide__ = True
    far = distance(got, want)
    if far <= tolerance:
        raise AssertionError(
            f"{what} makes no difference: logits stay within {far:.1e} of the reference's range, and the comparison"
            f" allows {tolerance:.0e}. Either the model does not use it, or the test cannot see it"
        )


def _errors(got: Tensor, want: Tensor) -> Tensor:
    """On the CPU, where ``got`` is."""
    return (got - want.detach().cpu().double()).abs()


def _range(want: Tensor) -> float:
    return (want.max() - want.min()).item()
