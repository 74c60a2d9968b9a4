"""All layers in one launch, and a head right behind them: shapes of Qwen3-0.6B and Llama-3.1-8B."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from vllm_kernels.bench.case import Call, Case
from vllm_kernels.bench.cases_elementwise import kernel
from vllm_kernels.kernel import Kernel
from vllm_kernels.small_product import product
from vllm_kernels.stack import SIGNATURE, THREADS
from vllm_kernels.stack_sizes import StackShape

_COMMON = {"head_dim": 128, "kv_heads": 8, "rotary": 128, "interleaved": False, "act": 0}
SHAPES = {
    "0.6B": StackShape(layers=28, hidden=1024, heads=16, intermediate=3072, qk_norm=True, **_COMMON),
    "8B": StackShape(layers=32, hidden=4096, heads=32, intermediate=14336, qk_norm=False, **_COMMON),
}
VOCABS = {"0.6B": 151936, "8B": 128256}
CONTEXT, BLOCK = 256, 16
BEYOND_CACHE = 1 << 30  # bytes of different weights: layers behind those repeat them
EPS = 1e-6


def cases() -> Iterator[Case]:
    for model, shape in SHAPES.items():
        for tokens in shape.variants():
            cached = 2 * 2 * tokens * CONTEXT * shape.kv_heads * shape.head_dim
            yield Case(
                kernel="decoder_stack",
                shape=f"T={tokens} context={CONTEXT} ({model})",
                dtype="bfloat16",
                make=partial(_stack, shape, tokens),
                bytes=shape.layers * (_layer_bytes(shape) + cached),
                major=9,
            )
        few = attrs.evolve(shape, layers=2)
        for tokens in (1, 4):
            yield Case(
                kernel="head_behind_stack" if tokens in shape.variants() else "head_behind_norm",
                shape=f"T={tokens} {shape.hidden}->{VOCABS[model]} ({model})",
                dtype="bfloat16",
                make=partial(_head, model, tokens, True),
                reference=partial(_head, model, tokens, False),
                before=partial(_stack_and_norm, few, tokens),
                bytes=2 * VOCABS[model] * shape.hidden,
                major=9,
            )


def _layer_bytes(shape: StackShape) -> int:
    return 2 * sum(rows * columns for rows, columns in _matrices(shape))


def _matrices(shape: StackShape) -> list[tuple[int, int]]:
    """Rows and columns of W_qkv, W_out, W_gate_up and W_down."""
    h, heads, inner = shape.hidden, shape.heads * shape.head_dim, shape.intermediate
    return [(heads + 2 * shape.kv_heads * shape.head_dim, h), (h, heads), (2 * inner, h), (h, inner)]


@cache
def _kernel(shape: StackShape, tokens: int) -> Kernel:
    shared = shape.shared_bytes(tokens)
    return Kernel("stack.cu", "stack", SIGNATURE, shape.defines(tokens), shared=shared, cooperative=True)


def _stack(shape: StackShape, tokens: int) -> Call:
    """The launch, as ``stack.Stack`` makes it, on layers of random weights."""
    scales = [_rand(shape.hidden), _rand(shape.hidden), _rand(shape.head_dim), _rand(shape.head_dim)]
    some = min(shape.layers, max(1, BEYOND_CACHE // _layer_bytes(shape)))
    weights = [[_rand(*size, scale=size[1] ** -0.5) for size in _matrices(shape)] for _ in range(some)]
    blocks = CONTEXT // BLOCK
    pages = [_rand(2, tokens * blocks, BLOCK, shape.kv_heads, shape.head_dim) for _ in range(shape.layers)]
    records = []
    for i, (keys, values) in enumerate(pages):
        qkv, out, gate_up, down = (w.data_ptr() for w in weights[i % some])
        norm, mlp_norm, q_norm, k_norm = (scale.data_ptr() for scale in scales)
        if not shape.qk_norm:
            q_norm = k_norm = 0
        records.append(
            [norm, qkv, 0, q_norm, k_norm, out, 0, mlp_norm, gate_up, 0, down, 0, keys.data_ptr(), values.data_ptr()]
        )
    table = torch.arange(tokens * blocks, dtype=torch.int32, device="cuda").view(tokens, blocks)
    lengths = torch.full((tokens,), CONTEXT, dtype=torch.int32, device="cuda")
    positions = lengths.long() - 1
    angles = torch.rand(CONTEXT, shape.rotary // 2, device="cuda")
    x, residual = _rand(tokens, shape.hidden), _rand(tokens, shape.hidden)
    strides = pages[0].stride()[1:4]
    sms = torch.cuda.get_device_properties(x.device).multi_processor_count
    launch = partial(
        _kernel(shape, tokens), min(sms, shape.fewest_units), THREADS,
        torch.tensor(records, dtype=torch.int64).cuda(), x, residual, torch.empty_like(x), torch.empty_like(x),
        positions, angles.cos(), angles.sin(), lengths, table[:, -1].long() * BLOCK + BLOCK - 1, table,
        torch.zeros(shape.words(tokens), dtype=torch.int64, device="cuda"), tokens, blocks, BLOCK.bit_length() - 1,
        *strides, *strides, EPS, EPS, EPS, shape.head_dim**-0.5,
    )  # fmt: skip
    return partial(_run, launch, (weights, pages, scales))


def _run(launch: Call, tensors: object) -> None:
    """A launch that knows addresses only of ``tensors``, which a call keeps."""
    launch()


def _stack_and_norm(shape: StackShape, tokens: int) -> Call:
    """What a head stands behind. Where the stack does not serve so many tokens, a kernel of as many blocks."""
    norm, x, scale = kernel("add_rms_norm", size=shape.hidden), _rand(tokens, shape.hidden), _rand(shape.hidden)
    if tokens in shape.variants():
        first = _stack(shape, tokens)
    else:
        big = _rand(1 << 22)
        first = partial(torch.neg, big, out=torch.empty_like(big))
    residual = _rand(tokens, shape.hidden)

    def run() -> None:
        first()
        norm(x, residual, scale, EPS)

    return run


def _head(model: str, tokens: int, ours: bool) -> Call:
    hidden, vocab = SHAPES[model].hidden, VOCABS[model]
    x, weight = _rand(tokens, hidden), _rand(vocab, hidden)
    if not ours:
        return partial(F.linear, x, weight)
    return partial(product(hidden, vocab, "bfloat16", device=x.device.index), x, weight)


def _rand(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * scale
