"""Norms, activations, rotary, cache writes: shapes of Qwen3-0.6B and Llama-3.1-8B."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.ops import OPS
from vllm_core.plugin import load_target
from vllm_kernels import offers
from vllm_kernels.bench.case import Call, Case
from vllm_kernels.qk import QKWrite

TOKENS = (1, 256, 8192)
BLOCK = 16  # tokens a page
HEADS = {"0.6B": (16, 8), "8B": (32, 8)}


def cases() -> Iterator[Case]:
    for size in (1024, 4096):
        for tokens in TOKENS:
            yield _op(
                "rms_norm", f"T={tokens} N={size}", {"size": size}, 2 * tokens * size, partial(_norm, tokens, size)
            )
            yield _op(
                "add_rms_norm", f"T={tokens} N={size}", {"size": size}, 4 * tokens * size,
                partial(_add_norm, tokens, size, torch.bfloat16),
            )  # fmt: skip
    weight = {"size": 2304, "weight": "float32"}
    for tokens in TOKENS:
        make = partial(_add_norm, tokens, 2304, torch.float32)
        yield _op("add_rms_norm", f"T={tokens} N=2304 float32 weight", weight, 4 * tokens * 2304, make)
        yield _op("layer_norm", f"T={tokens} N=4096", {"size": 4096}, 2 * tokens * 4096, partial(_layer, tokens, 4096))
        added = partial(_layer, tokens, 4096, residual=True)
        yield _op("add_layer_norm", f"T={tokens} N=4096", {"size": 4096}, 4 * tokens * 4096, added)
    for name in ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul"):
        for size in (3072, 14336) if name == "silu_and_mul" else (14336,):
            for tokens in TOKENS:
                make = partial(_gate, tokens, size)
                yield _op(name, f"T={tokens} N={size}", {"size": size}, 3 * tokens * size, make)
    for name in ("gelu", "gelu_tanh", "relu"):
        make = partial(_gate, TOKENS[-1], 5120)
        yield _op(name, f"T={TOKENS[-1]} N=10240", {"size": 10240}, 2 * TOKENS[-1] * 10240, make)
    for tokens in TOKENS:
        for model, (heads, kv_heads) in HEADS.items():
            yield _qk(tokens, heads, kv_heads, norm=model == "0.6B")
        shape = {"head_dim": 128, "rotary_dim": 128, "interleaved": False}
        count = 2 * tokens * 40 * 128 + 2 * tokens * 128  # cos and sin have 4 bytes an element
        yield _op("rotary", f"T={tokens} heads=40 D=128", shape, count, partial(_rotary, tokens, 40))
        shape = {"num_kv_heads": 8, "k_dim": 128, "v_dim": 128, "head_axis": 2, "kv_dtype": "bfloat16"}
        yield _op("write_kv", f"T={tokens} KV=8 D=128", shape, 4 * tokens * 8 * 128, partial(_write, tokens))
        yield _op("embedding", f"T={tokens} N=1024", {"size": 1024}, 2 * tokens * 1024, partial(_embed, tokens))
    for count in (1, 64):  # through memory of their own: each page is read and written twice
        yield _op("copy_pages", f"N={count} of 64 KiB", {}, 2 * count * (1 << 15), partial(_copied, count))


def kernel(name: str, dtype: str = "bfloat16", **shape: Any) -> Any:
    """The op of this package for a shape on the current device."""
    device = Device("cuda", capability=torch.cuda.get_device_capability())
    return load_target(offers.OPS[name].target)(OpQuery(op=name, dtype=dtype, device=device, shape=shape))


def _op(name: str, shown: str, shape: dict[str, Any], elements: int, inputs: Any) -> Case:
    """``elements`` of two bytes that are read or written; ``inputs() -> arguments``."""
    made: list[Any] = []

    def ours() -> Call:
        if not made:
            made.append(kernel(name, **shape))
        return partial(made[0], *inputs())

    return Case(
        kernel=name,
        shape=shown,
        dtype="bfloat16",
        make=ours,
        reference=lambda: partial(OPS[name].reference, *inputs()),
        bytes=2 * elements,
    )


def _rand(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=dtype)


def _norm(tokens: int, size: int) -> tuple[Any, ...]:
    return _rand(tokens, size), _rand(size), 1e-6


def _add_norm(tokens: int, size: int, weight: torch.dtype) -> tuple[Any, ...]:
    return _rand(tokens, size), _rand(tokens, size), _rand(size, dtype=weight), 1e-6


def _layer(tokens: int, size: int, residual: bool = False) -> tuple[Any, ...]:
    return *(_rand(tokens, size) for _ in range(1 + residual)), _rand(size), _rand(size), 1e-5


def _gate(tokens: int, size: int) -> tuple[Any, ...]:
    return (_rand(tokens, 2 * size),)


def _rotary(tokens: int, heads: int) -> tuple[Any, ...]:
    angles = _rand(tokens, 64, dtype=torch.float32)
    return _rand(tokens, heads, 128), angles.cos(), angles.sin()


def _write(tokens: int) -> tuple[Any, ...]:
    pages = [torch.empty(tokens // BLOCK + 2, BLOCK, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    return _rand(tokens, 8, 128), _rand(tokens, 8, 128), *pages, _slots(tokens)


def _slots(tokens: int) -> Tensor:
    return BLOCK + torch.randperm(tokens, device="cuda")


def _embed(tokens: int) -> tuple[Any, ...]:
    return torch.randint(151936, (tokens,), device="cuda"), _table()


def _copied(count: int) -> tuple[Any, ...]:
    order = torch.randperm(1024, device="cuda")
    return torch.empty(1024, 1 << 16, dtype=torch.uint8, device="cuda"), order[:count], order[count : 2 * count]


@cache
def _angles() -> tuple[Tensor, Tensor]:
    """One table, as all layers of a model share it."""
    angles = _rand(8192, 64, dtype=torch.float32)
    return angles.cos(), angles.sin()


@cache
def _table() -> Tensor:
    return _rand(151936, 1024)


def _qk(tokens: int, heads: int, kv_heads: int, norm: bool) -> Case:
    units = heads + 2 * kv_heads
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": 128, "dtype": "bfloat16", "kv_dtype": "bfloat16"}

    def inputs() -> tuple[Any, ...]:
        pages = [torch.empty(tokens // BLOCK + 2, BLOCK, kv_heads, 128, device="cuda", dtype=torch.bfloat16)] * 2
        positions = torch.arange(tokens, device="cuda")
        return _rand(tokens, units * 128), *_angles(), positions, *pages, _slots(tokens)

    def ours() -> Call:
        weights = (_rand(128), _rand(128)) if norm else (None, None)
        write = QKWrite(**shape, rotary_dim=128, q_weight=weights[0], k_weight=weights[1], eps=1e-6)  # type: ignore[arg-type]
        return partial(write, *inputs(), "NHD")

    def composed() -> Call:
        qkv, cos, sin, positions, *cache = inputs()
        weights = _rand(128), _rand(128)

        def run() -> None:
            q, k, v = qkv.view(tokens, units, 128).split((heads, kv_heads, kv_heads), 1)
            if norm:
                q, k = OPS["rms_norm"].reference(q, weights[0], 1e-6), OPS["rms_norm"].reference(k, weights[1], 1e-6)
            rows = cos[positions], sin[positions]
            q, k = OPS["rotary"].reference(q, *rows), OPS["rotary"].reference(k, *rows)
            OPS["write_kv"].reference(k, v, *cache)

        return run

    return Case(
        kernel="qk_norm_rope_write" if norm else "qk_rope_write",
        shape=f"T={tokens} H={heads} KV={kv_heads} D=128",
        dtype="bfloat16",
        make=ours,
        reference=composed,
        bytes=2 * 2 * tokens * units * 128 + tokens * 64 * 2 * 4,
    )
