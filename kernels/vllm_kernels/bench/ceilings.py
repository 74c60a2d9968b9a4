"""What this device reaches at best: the two figures that all others are shares of."""

from __future__ import annotations

import attrs
import torch

from vllm_kernels.bench.timing import captured, graph_microseconds


@attrs.frozen
class Ceilings:
    gb_per_s: float  # of a large copy, bytes read and written
    tflop_per_s: float  # of a large bfloat16 product of random numbers


def ceilings() -> Ceilings:
    source = torch.randint(1 << 30, (1 << 28,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    # A kernel that reads and writes; torch's copy_ is the driver's memcpy, which here is slower in a graph.
    copy = graph_microseconds(captured(lambda: [torch.neg(source, out=target) for _ in range(4)])) / 4
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    product = graph_microseconds(captured(lambda: [torch.mm(a, b) for _ in range(4)])) / 4
    return Ceilings(2 * 4 * source.numel() / copy / 1e3, 2 * n**3 / product / 1e6)
