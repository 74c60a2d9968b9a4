"""Ops that layers ask for, with their results in float64: written from the contracts in `vllm_core.ops`.

Longer than other files, so that an op and what it means stand in one place; nothing but the ops' cases is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from vllm_core.testing.kernel_case import DTYPES, Call, OpCase, Want, normal

SIZES = {"usual": 64, "odd": 77, "one": 1, "large": 1024}
TINY = 1e-30  # of room: where the result is zero it must be
F32 = torch.float32


def layer_cases() -> Iterator[OpCase]:
    yield from _activations()
    yield from _norms()
    yield from _products()
    yield from _rotary()
    yield from _lookups()
    yield from _pages()


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _gelu_tanh(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _activations() -> Iterator[OpCase]:
    gated: dict[str, Callable[[Tensor], Tensor]] = {
        "silu_and_mul": _silu,
        "gelu_and_mul": _gelu,
        "gelu_tanh_and_mul": _gelu_tanh,
    }
    alone: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": _gelu,
        "gelu_tanh": _gelu_tanh,
        "relu": lambda x: x.clamp_min(0),
    }
    for name, act in {**gated, **alone}.items():
        for sizes, n in SIZES.items():
            make = partial(_activation, act, n, name in gated)
            yield OpCase(op=name, name=sizes, shape={"size": n}, make=make, rows=(0,), strided=(0,))


def _activation(act: Any, n: int, gated: bool, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    x = normal(generator, dtype, tokens, 2 * n if gated else n)
    if tokens > 1:  # where exp overflows, and where the gate is closed
        x[1, ::3], x[1, 1::3] = -100.0, 100.0
    exact = x.double()
    gate, up = exact.chunk(2, -1) if gated else (exact, torch.ones((), dtype=torch.float64))
    return Call(args=(x,), wants=(Want(value=act(gate) * up, room=(gate * up).abs() + TINY),))


def _norms() -> Iterator[OpCase]:
    for sizes, n in SIZES.items():
        for heavy in (False, True):
            name = f"{sizes}, float32 weight" if heavy else sizes
            shape = {"size": n, "weight": "float32"} if heavy else {"size": n}
            dtypes = DTYPES[1:] if heavy else DTYPES
            yield OpCase(
                op="rms_norm", name=name, shape=shape, make=partial(_rms_norm, n, heavy), rows=(0,), promised=(0,),
                dtypes=dtypes,
            )  # fmt: skip
            make = partial(_add_norm, n, heavy, True)
            yield OpCase(op="add_rms_norm", name=name, shape=shape, make=make, rows=(0, 1), dtypes=dtypes)
        for weighted in (True, False):
            name = sizes if weighted else f"{sizes}, no weight"
            make = partial(_layer_norm, n, weighted)
            yield OpCase(op="layer_norm", name=name, shape={"size": n}, make=make, rows=(0,), strided=(0,))
            yield OpCase(
                op="add_layer_norm", name=name, shape={"size": n}, make=partial(_add_norm, n, weighted, False),
                rows=(0, 1),
            )  # fmt: skip
    yield OpCase(
        op="rms_norm", name="heads", shape={"size": 16}, make=partial(_rms_norm, 16, False, heads=3), rows=(0,),
        promised=(0,),
    )  # fmt: skip


EPS = 1e-5


def _rms(x: Tensor, weight: Tensor) -> Want:
    """x and weight float64."""
    value = weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + EPS)
    return Want(value=value, room=value.abs() + TINY)


def _centred(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Want:
    mean = x.mean(-1, keepdim=True)
    scale = torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + EPS)
    factor = scale if weight is None else scale * weight.double()
    added = torch.zeros((), dtype=torch.float64) if bias is None else bias.double()
    size = x.square().mean(-1, keepdim=True).sqrt()  # the mean is off by a share of it
    room = (x.abs() + size) * factor.abs() + added.abs() + TINY
    return Want(value=(x - mean) * factor + added, room=room)


def _rms_norm(n: int, heavy: bool, dtype: torch.dtype, tokens: int, generator: Generator, heads: int = 0) -> Call:
    x = normal(generator, dtype, *((tokens, heads, n) if heads else (tokens, n)))
    weight = torch.randn(n, generator=generator).to(F32 if heavy else dtype)
    return Call(args=(x, weight, EPS), wants=(_rms(x.double(), weight.double()),))


def _layer_norm(n: int, weighted: bool, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    x = normal(generator, dtype, tokens, n)
    weight = torch.randn(n, generator=generator).to(dtype) if weighted else None
    bias = torch.randn(n, generator=generator).to(dtype) if weighted else None
    return Call(args=(x, weight, bias, EPS), wants=(_centred(x.double(), weight, bias),))


def _add_norm(n: int, flag: bool, rms: bool, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    """``flag``: of rms norms, a float32 weight; of others, whether there are weights."""
    x, residual = (normal(generator, dtype, tokens, n) for _ in range(2))
    total = x + residual  # rounded before it is normalised
    weight: Tensor | None = torch.randn(n, generator=generator).to(F32 if rms and flag else dtype)
    bias: Tensor | None = torch.randn(n, generator=generator).to(dtype)
    if rms:
        assert weight is not None
        args: tuple[Any, ...] = (x, residual, weight, EPS)
        want = _rms(total.double(), weight.double())
    else:
        weight, bias = (weight, bias) if flag else (None, None)
        args, want = (x, residual, weight, bias, EPS), _centred(total.double(), weight, bias)
    return Call(args=args, wants=(want, Want(value=total)), free=frozenset({0, 1}))


PRODUCTS = {"usual": (64, 48), "odd": (77, 35), "one": (1, 1), "large": (576, 192)}


def _products() -> Iterator[OpCase]:
    for sizes, (inputs, out) in PRODUCTS.items():
        for biased in (False, True):
            name = f"{sizes}, bias" if biased else sizes
            shape = {"in_size": inputs, "out_size": out, "bias": biased}
            for op, scaled in (("linear", False), ("scaled_linear", True)):
                make = partial(_product, inputs, out, biased, scaled)
                weight = None if scaled else 1
                yield OpCase(op=op, name=name, shape=shape, make=make, rows=(0,), strided=(0,), weight=weight)


def _product(
    inputs: int, out: int, biased: bool, scaled: bool, dtype: torch.dtype, tokens: int, generator: Generator
) -> Call:
    x = normal(generator, dtype, tokens, inputs)
    if scaled:
        numbers = torch.randint(-128, 128, (out, inputs), generator=generator, dtype=torch.int8)
        scales = torch.rand(out, generator=generator) / 64
        parts: tuple[Any, ...] = (numbers, scales)
        weight = numbers.double() * scales.double()[:, None]
    else:
        parts = (torch.randn(out, inputs, generator=generator).to(dtype),)
        weight = parts[0].double()
    bias = torch.randn(out, generator=generator).to(dtype) if biased else None
    added = bias.double() if bias is not None else torch.zeros(out, dtype=torch.float64)
    value = x.double() @ weight.T + added
    room = x.double().abs() @ weight.abs().T + added.abs() + TINY
    return Call(args=(x, *parts, bias), wants=(Want(value=value, room=room),))


HEADS = {"usual": (64, 64), "part of a head": (40, 24), "one pair": (2, 2), "large": (128, 128)}


def _rotary() -> Iterator[OpCase]:
    for sizes, (dim, turned) in HEADS.items():
        for interleaved in (False, True):
            shape = {"head_dim": dim, "rotary_dim": turned, "interleaved": interleaved}
            name = f"{sizes}, interleaved" if interleaved else sizes
            make = partial(_turn, dim, turned, interleaved)
            yield OpCase(op="rotary", name=name, shape=shape, make=make, rows=(0, 1, 2), promised=(0,))


def _turn(dim: int, turned: int, interleaved: bool, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    x = normal(generator, dtype, tokens, 3, dim)
    angles = 100 * torch.rand(tokens, turned // 2, generator=generator)
    cos, sin = angles.cos(), angles.sin()
    head, c, s = x[..., :turned].double(), cos.double()[:, None], sin.double()[:, None]
    a, b = (head[..., 0::2], head[..., 1::2]) if interleaved else head.chunk(2, -1)
    pairs = (a * c - b * s, b * c + a * s)
    rooms = ((a * c).abs() + (b * s).abs(), (b * c).abs() + (a * s).abs())
    both = [torch.stack(t, -1).flatten(-2) if interleaved else torch.cat(t, -1) for t in (pairs, rooms)]
    rest = x[..., turned:].double()
    value, room = torch.cat((both[0], rest), -1), torch.cat((both[1], torch.zeros_like(rest)), -1)
    return Call(args=(x, cos, sin, interleaved), wants=(Want(value=value, room=room + TINY),), free=frozenset({0}))


def _lookups() -> Iterator[OpCase]:
    for sizes, n in SIZES.items():
        make = partial(_embedding, n)
        yield OpCase(op="embedding", name=sizes, shape={"size": n, "vocab": 50}, make=make, rows=(0,))
    for sizes, n in {"usual": 512, "odd": 1003, "one": 1}.items():
        yield OpCase(op="argmax", name=sizes, shape={"vocab": n}, make=partial(_argmax, n), rows=(0,), strided=(0,))


def _embedding(n: int, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    table = torch.randn(50, n, generator=generator).to(dtype)
    ids = torch.randint(0, 50, (tokens,), generator=generator)
    return Call(args=(ids, table), wants=(Want(value=table[ids]),))


def _argmax(vocab: int, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    logits = torch.randn(tokens, vocab, generator=generator).to(dtype)
    logits[1::2] = logits[1::2].mul(2).round()  # the largest is there several times
    logits[2::4, : vocab - 1] = -torch.inf
    first = torch.from_numpy(logits.float().numpy().argmax(-1))  # numpy's is the lowest of equals
    return Call(args=(logits,), wants=(Want(value=first, dtype=torch.int64),))


def _pages() -> Iterator[OpCase]:
    for axis, layout in ((2, "tokens first"), (1, "heads first")):
        for sizes, (k_dim, v_dim) in {"usual": (64, 64), "odd": (40, 24)}.items():
            shape = {"num_kv_heads": 2, "k_dim": k_dim, "v_dim": v_dim, "head_axis": axis}
            make = partial(_write, axis, k_dim, v_dim)
            yield OpCase(op="write_kv", name=f"{sizes}, {layout}", shape=shape, make=make, promised=(0, 1))
    yield OpCase(op="copy_pages", name="usual", shape={}, make=_copy, tokens=(0, 1, 5), typed=False)


def _write(axis: int, k_dim: int, v_dim: int, dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    block, pages = 4, 12
    k, v = (normal(generator, dtype, tokens, 2, dim) for dim in (k_dim, v_dim))
    caches = [
        torch.randn(*((pages, block, 2, dim) if axis == 2 else (pages, 2, block, dim)), generator=generator).to(dtype)
        for dim in (k_dim, v_dim)
    ]
    slots = block + torch.randperm((pages - 1) * block, generator=generator)[:tokens]
    after = [cache.clone() for cache in caches]
    for t, slot in enumerate(slots.tolist()):
        page, place = divmod(slot, block)
        for cache, new in zip(after, (k, v), strict=True):
            (cache[page, place] if axis == 2 else cache[page, :, place]).copy_(new[t])
    changes = {2: Want(value=after[0]), 3: Want(value=after[1])}
    return Call(args=(k, v, *caches, slots, axis), changes=changes)


def _copy(dtype: torch.dtype, tokens: int, generator: Generator) -> Call:
    pages = torch.randn(12, 4, 6, generator=generator).to(dtype)
    order = torch.randperm(12, generator=generator)
    targets, sources = order[:tokens], order[2 : 2 + tokens]  # some are read and written
    after = pages.clone()
    for target, source in zip(targets.tolist(), sources.tolist(), strict=True):
        after[target] = pages[source]
    return Call(args=(pages, sources, targets), changes={0: Want(value=after)})
