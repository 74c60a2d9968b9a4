"""How the elements of a head are spread over threads of a warp. No torch."""

from __future__ import annotations


def head_width(head_dim: int, rotary_dim: int, interleaved: bool) -> int:
    """Elements that a thread has: 8, 4 or 2, with the partners of all of them in one other thread; 0: none fits."""
    half = 0 if interleaved else rotary_dim // 2
    sizes = (n for n in (8, 4, 2) if head_dim % n == 0 and half % n == 0 and head_dim // n <= 32)
    return next(sizes, 0)


def head_limits(head_dim: int, rotary_dim: int, interleaved: bool) -> str:
    """Why heads of this shape cannot be normed and turned here, or ""."""
    if not head_width(head_dim, rotary_dim, interleaved):
        return f"heads of {head_dim} elements, {rotary_dim} of them rotated, do not fit the threads of a warp"
    return ""
