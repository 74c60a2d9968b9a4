"""What a step holds of a device's memory between its layers, from shapes alone: nothing runs.

Counted where a composed layer holds most at once. A fused kernel may need less; what a library takes as work space
is in `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from vllm_core.layers.linear import Linear
from vllm_core.runner.graphs import MIXED, decode_sizes

__all__ = ["activation_bytes", "forward_bytes", "graph_bytes", "sampling_bytes"]

MARGIN = 1.15
"""Of what is counted: blocks of memory are rounded up, and one that was left by a larger step has gaps."""

STREAMS = 4
"""Hidden states that live beside a layer's own: its input, the residual before and after, and the normed input."""


GRAPH = 6 << 20
"""Bytes that the driver takes for a recorded step."""


def activation_bytes(model: nn.Module, vocab_size: int, itemsize: int, tokens: int, rows: int, num_drafts: int) -> int:
    """The most that a step of ``tokens`` tokens and ``rows`` rows holds beside weights and cache.

    model      bound, on the meta device or another
    itemsize   bytes of an activation
    """
    rows = min(rows, tokens)
    lines = min(rows * (1 + num_drafts), tokens)
    forward = forward_bytes(model, itemsize, tokens)
    sampling = tokens * _hidden(model) * itemsize + sampling_bytes(vocab_size, itemsize, lines)
    return int(MARGIN * max(forward, sampling))


def forward_bytes(model: nn.Module, itemsize: int, tokens: int) -> int:
    """Between two layers' products: what one gave, what the next one takes, and the hidden states."""
    widest = max((_between(first, second) for first, second in _neighbours(model)), default=0)
    return tokens * itemsize * (widest + STREAMS * _hidden(model))


def sampling_bytes(vocab_size: int, itemsize: int, lines: int) -> int:
    """Logits, and two to three float32 copies: scaled, as weights, and cut into blocks."""
    return lines * vocab_size * (itemsize + 10)


def graph_bytes(rows: int) -> int:
    """The driver's own for all recorded steps of up to so many rows, as if each size had been needed."""
    return GRAPH * (len(decode_sizes(rows)) + len(MIXED))


def _neighbours(model: nn.Module) -> Iterator[tuple[Linear, Linear]]:
    """Products that follow each other in one layer (a lone one follows itself)."""
    for module in model.modules():
        products = [child for child in module.children() if isinstance(child, Linear)]
        if module is not model:  # a head beside the stack is counted with the sampler
            yield from zip(products, products[1:] or products, strict=False)


def _between(first: Linear, second: Linear) -> int:
    """Elements a token that live between two products: at most what the first gave, twice if a head's q and k are
    normed and turned on the way, and what the second takes."""
    given, taken = sum(_outputs(first)), second.in_size
    turned = given if len(_outputs(first)) == 3 else 0
    return given + turned + taken


def _outputs(layer: Linear) -> tuple[int, ...]:
    return tuple(layer.out_sizes.values())


def _hidden(model: nn.Module) -> int:
    """Elements of a hidden state: what the first product takes."""
    return next((module.in_size for module in model.modules() if isinstance(module, Linear)), 0)
