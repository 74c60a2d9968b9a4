"""Products of few tokens: the matrices of Qwen3-0.6B and Llama-3.1-8B, beside torch's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn import functional as F

from vllm_kernels.bench.case import Call, Case
from vllm_kernels.small_product import product
from vllm_kernels.small_tiling import Problem

TOKENS = (1, 2, 4, 8, 16)
EPS = 1e-6
# model, kernel -> in_size, out_size; those of "norm" have a residual and a norm before them
PRODUCTS = {
    ("0.6B", "norm_qkv"): (1024, 4096), ("0.6B", "output"): (2048, 1024), ("0.6B", "norm_gate_up_silu"): (1024, 3072),
    ("0.6B", "down"): (3072, 1024), ("0.6B", "head"): (1024, 151936), ("8B", "norm_qkv"): (4096, 6144),
    ("8B", "output"): (4096, 4096), ("8B", "norm_gate_up_silu"): (4096, 14336), ("8B", "down"): (14336, 4096),
    ("8B", "head"): (4096, 128256),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for (model, name), (in_size, out_size) in PRODUCTS.items():
        rows = out_size * (2 if name.endswith("silu") else 1)
        scale_bytes = 2 if name.startswith("norm") else 0
        for tokens in TOKENS:
            if tokens > Problem(in_size=in_size, out_size=out_size, scale_bytes=scale_bytes, tokens=16).worth:
                continue
            read = rows * in_size + (2 if name.startswith("norm") else 1) * tokens * in_size
            written = tokens * out_size + (tokens * in_size if name.startswith("norm") else 0)
            yield Case(
                kernel=f"small.{name}",
                shape=f"T={tokens} {in_size}->{rows} ({model})",
                dtype="bfloat16",
                make=partial(_ours, name, in_size, out_size, tokens),
                reference=partial(_torch, name, in_size, rows, tokens),
                bytes=2 * (read + written),
            )


def _ours(name: str, in_size: int, out_size: int, tokens: int) -> Call:
    norm, act = ("bfloat16" if name.startswith("norm") else ""), ("silu" if name.endswith("silu") else "")
    weight = _rand(out_size * (2 if act else 1), in_size)
    x = _rand(tokens, in_size)
    small = product(in_size, out_size, "bfloat16", norm, act, x.device.index)
    if not norm:
        return partial(small, x, weight)
    residual, scale, total = _rand(tokens, in_size), _rand(in_size), torch.empty_like(x)
    return partial(small, x, weight, residual=residual, scale=scale, eps=EPS, total=total)


def _torch(name: str, in_size: int, rows: int, tokens: int) -> Call:
    weight, x, residual, scale = _rand(rows, in_size), _rand(tokens, in_size), _rand(tokens, in_size), _rand(in_size)

    def run() -> torch.Tensor:
        h = F.rms_norm(x + residual, (in_size,), scale, EPS) if name.startswith("norm") else x
        y = F.linear(h, weight)
        if not name.endswith("silu"):
            return y
        gate, up = y.chunk(2, dim=-1)
        return F.silu(gate) * up

    return run


def _rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)
