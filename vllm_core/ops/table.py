"""The table of ops: what a layer may ask a kernel for, each with its plain torch reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from vllm_core.interfaces.queries import OpQuery

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Op:
    """One op. The docstring of ``reference`` is the contract that kernels are written from."""

    name: str
    reference: Callable[..., Any]


OPS: dict[str, Op] = {}
"""All ops by name."""

LAYER_OPS: dict[str, str] = {
    "decoder_attention": "vllm_core.layers.decoder_attention:DecoderAttention.compose",
    "gated_mlp": "vllm_core.layers.gated_mlp:GatedMLP.compose",
    "decoder_stack": "vllm_core.layers.stack:LayerStack.compose",
}
"""Ops that are whole layers, and where their reference is: the layer's own composition of small ops.

A kernel is called as that is, ``(x, residual, batch) -> (x, residual)``, may overwrite both and
reads the layer's parameters and settings.
"""


def reference_kernel(query: OpQuery) -> Callable[..., Any]:
    """The core's own ``interfaces.op.OpKernel``: the plain version of any op."""
    return OPS[query.op].reference


def op(function: F) -> F:
    """Enter ``function`` in the table under its own name. It stays callable as it is."""
    name = function.__name__
    if name in OPS or name in LAYER_OPS:
        raise ValueError(f"op {name!r} is in the table already ({OPS.get(name) or LAYER_OPS[name]})")
    if not function.__doc__:
        raise ValueError(f"op {name!r} has no contract: write its docstring")
    OPS[name] = Op(name, function)
    return function
