"""What a kernel is called with, and what is right: arguments, results in float64, and who may be written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

DTYPES = ("float32", "bfloat16", "float16")


@attrs.frozen(kw_only=True, eq=False)
class Want:
    """A result: float64 with the room that errors have, or exact."""

    value: Tensor
    room: Tensor | None = None  # an element may be off by the tolerance times this; None: by nothing
    dtype: torch.dtype | None = None  # of the result; None: that of the query

    def differs(self, got: Tensor, tolerance: float) -> str:
        """What is wrong with a result, "" if nothing is."""
        if got.shape != self.value.shape:
            return f"is {list(got.shape)}, not {list(self.value.shape)}"
        got = got.cpu()
        if self.room is None:
            same = (got == self.value) | ((got != got) & (self.value != self.value))
            bad = ~same
        else:
            off = (got.double() - self.value).abs()
            close = off <= tolerance * self.room + _unit(got.dtype)
            bad = ~(close | (got.double() == self.value))  # NaN is bad, infinities that were wanted are not
        if not bad.any():
            return ""
        at = tuple(int(i) for i in bad.nonzero()[0]) if bad.dim() else ()
        return (
            f"is wrong in {int(bad.sum())} of {bad.numel()} elements, first at {list(at)}: {got[at].item():.8g} instead"
            f" of {self.value[at].item():.8g}"
        )


@attrs.frozen(kw_only=True, eq=False)
class Call:
    """One call of an op.

    args      as a layer gives them, on the CPU
    wants     results, in order; () where the op returns nothing
    changes   argument -> what it must hold afterwards
    free      arguments that may be overwritten
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    wants: tuple[Want, ...] = ()
    changes: Mapping[int, Want] = attrs.field(factory=dict)
    free: frozenset[int] = frozenset()


@attrs.frozen(kw_only=True, eq=False)
class OpCase:
    """One op with fixed sizes.

    name      of the sizes: "usual", "odd", ...
    shape     of the query
    make      (dtype, tokens, generator) -> `Call`
    rows      arguments whose first axis is the tokens': row t of each result depends on row t of these alone; () where
              that is not so
    promised  arguments whose rows may lie at any stride by the op's contract
    strided   arguments whose rows may lie at any stride, or such a call is refused
    weight    the argument that a `PackingKernel` packs
    dtypes    that it is asked for
    typed     whether what it computes is of the query's dtype
    """

    op: str
    name: str
    shape: Mapping[str, Any]
    make: Callable[[torch.dtype, int, torch.Generator], Call]
    rows: tuple[int, ...] = ()
    promised: tuple[int, ...] = ()
    strided: tuple[int, ...] = ()
    weight: int | None = None
    tokens: tuple[int, ...] = (0, 1, 2, 7, 33)
    dtypes: tuple[str, ...] = DTYPES
    typed: bool = True

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def _unit(dtype: torch.dtype) -> float:
    """The smallest step between two numbers."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def normal(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Rows of very different sizes, so that a sum over the wrong row shows."""
    x = torch.randn(*shape, generator=generator)
    if len(shape) > 1:
        sizes = torch.exp2(torch.arange(shape[0]) % 7 - 3.0)
        x = x * sizes.view(-1, *[1] * (len(shape) - 1))
    return x.to(dtype)


def placed(x: Any, device: torch.device, how: str = "") -> Any:
    """A copy of a tensor on a device, whose rows lie as ``how`` says; anything else as it is."""
    if not isinstance(x, Tensor):
        return x
    if not how or not x.dim():
        return x.to(device).clone()
    if how == "rows of a wider tensor":
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1] + 3, dtype=x.dtype, device=device)
        return wide[..., : x.shape[-1]].copy_(x)
    if how == "every second row":
        tall = torch.zeros(2 * len(x), *x.shape[1:], dtype=x.dtype, device=device)
        return tall[::2].copy_(x)
    if how == "one element further":
        return torch.zeros(x.numel() + 1, dtype=x.dtype, device=device)[1:].view(x.shape).copy_(x)
    if how == "columns first":
        return x.to(device).mT.contiguous().mT if x.dim() > 1 else x.to(device).clone()
    raise ValueError(how)


LAYOUTS = ("rows of a wider tensor", "every second row", "one element further", "columns first")
PROMISED = LAYOUTS[:3]  # of rows at any stride


def raw(x: Any) -> bytes:
    """For comparisons bit for bit, of what is seen through a view."""
    if not isinstance(x, Tensor):
        return repr(x).encode()
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def results(returned: Any) -> Sequence[Tensor]:
    if returned is None:
        return ()
    return (returned,) if isinstance(returned, Tensor) else tuple(returned)


def shares(a: Any, b: Any) -> bool:
    """Whether two tensors have bytes in common, by the places that they reach from first to last."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not a.numel() or not b.numel() or a.device != b.device:
        return False
    (a0, a1), (b0, b1) = ends(a), ends(b)
    return a0 < b1 and b0 < a1


def ends(x: Tensor) -> tuple[int, int]:
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()
