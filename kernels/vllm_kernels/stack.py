"""All decoder layers of a step of a few tokens as one launch (``cuda/stack.cu``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.kernel import Kernel
from vllm_kernels.stack_records import page_strides, readable, records
from vllm_kernels.stack_sizes import StackShape
from vllm_kernels.variant import Variant

THREADS = 288  # 8 warps that compute and one that copies weights
SIGNATURE = "PPPPPPPPPPPP" + "iii" + "llllll" + "ffff"

Layers = Callable[[Tensor, Tensor | None, Batch], tuple[Tensor, Tensor | None]]


def decoder_stack(query: OpQuery, layer: Any) -> Layers | None:
    """``FusedLayer`` for ``LayerStack``: steps of one token a sequence, a few sequences; others are composed."""
    decoders = [decoder for _, decoder in sorted((int(n), m) for n, m in layer._modules.items())]
    if not readable(decoders):
        return None
    return Stack(StackShape.of(query.shape), layer, decoders)


class Stack:
    """Called as ``layer.compose`` is. Its work space and counters serve one step at a time."""

    def __init__(self, shape: StackShape, layer: Any, decoders: list[Any]) -> None:
        self._layer, self._decoders = layer, decoders
        self._device = decoders[0].attention.qkv._parameters["weight"].device
        self._bound = decoders[0].attention.attend.attend
        self._rotary = decoders[0].attention.rotary
        first = decoders[0]
        qk_norm = first.attention.q_norm
        self._floats = (
            first.attention.norm.eps,
            qk_norm.eps if qk_norm is not None else 0.0,
            first.mlp.norm.eps,
            first.attention.attend.scale,
        )
        sms = torch.cuda.get_device_properties(self._device).multi_processor_count
        self._grid = min(sms, shape.fewest_units)
        self._kernels = {tokens: self._compile(shape, tokens) for tokens in shape.variants()}
        self._most = max(self._kernels)
        self._of = [min(n for n in self._kernels if n >= tokens) for tokens in range(1, self._most + 1)]
        # Zero is no tag: nothing that lies here is taken for a result.
        self._words = {n: torch.zeros(shape.words(n), dtype=torch.int64, device=self._device) for n in self._kernels}
        self._pages: Any = None  # those that the records have
        self._strides: Any = None
        self._records: Tensor | None = None

    def __call__(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        tokens = x.shape[0]
        if tokens > self._most:
            return self._layer.compose(x, residual, batch)
        step = self._bound.of(batch)[0]
        positions = batch.positions
        if step.longest_query != 1 or len(step.kv_lens) != tokens or positions.dim() != 1:
            return self._layer.compose(x, residual, batch)
        if self._bound.pages is not self._pages and not self._attach():
            return self._layer.compose(x, residual, batch)
        if self._strides is None:
            return self._layer.compose(x, residual, batch)
        variant = self._of[tokens - 1]
        out, total = torch.empty_like(x), torch.empty_like(x)
        table = self._rotary.table if self._rotary is not None else None
        cos, sin = (table.cos, table.sin) if table is not None else (None, None)
        self._kernels[variant](
            self._grid,
            THREADS,
            *(self._records, x, residual, out, total, positions, cos, sin),
            *(step.kv_lens, step.slots, step.block_table, self._words[variant]),
            *(tokens, step.block_table.stride(0), self._strides.block_bits, *self._strides.strides, *self._floats),
        )
        return out, total

    def _attach(self) -> bool:
        """Pages were made, or made anew. False while a graph is captured, which cannot contain it."""
        if torch.cuda.is_current_stream_capturing():
            return False
        self._strides = page_strides(self._decoders)
        self._records = records(self._decoders, self._device) if self._strides is not None else None
        self._pages = self._bound.pages
        return True

    def _compile(self, shape: StackShape, tokens: int) -> Kernel:
        return Kernel(
            "stack.cu",
            "stack",
            SIGNATURE,
            shape.defines(tokens),
            shared=shape.shared_bytes(tokens),
            cooperative=True,
            device=self._device,
        )


def variants() -> list[Variant]:
    """For the shapes of Qwen3-0.6B, Llama-3.1-8B and Qwen2.5-0.5B; others are compiled the same way."""
    common = {"head_dim": 128, "kv_heads": 8, "rotary": 128, "interleaved": False, "act": 0}
    qwen = StackShape(layers=28, hidden=1024, heads=16, intermediate=3072, qk_norm=True, **common)
    llama = StackShape(layers=32, hidden=4096, heads=32, intermediate=14336, qk_norm=False, **common)
    small = {"head_dim": 64, "kv_heads": 2, "rotary": 64, "qk_norm": False}
    grouped = StackShape(**{**common, **small}, layers=24, hidden=896, heads=14, intermediate=4864)
    return [
        Variant(file="stack.cu", defines=shape.defines(tokens), names=("stack",), capability=(9, 0))
        for shape in (qwen, llama, grouped)
        for tokens in shape.variants()
    ]
