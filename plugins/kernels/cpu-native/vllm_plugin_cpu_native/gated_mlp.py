"""The second half of a decoder layer as one kernel."""

from __future__ import annotations

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.queries import OpQuery
from vllm_plugin_cpu_native import library
from vllm_plugin_cpu_native.decoder_attention import Half
from vllm_plugin_cpu_native.records import linear_record, norm_record, readable

ACTIVATIONS = {"silu": 0, "gelu_pytorch_tanh": 1, "gelu": 2}  # as in csrc/rows.h


def native_gated_mlp(query: OpQuery, layer: Any) -> Half | None:
    """``FusedLayer`` for ``GatedMLP``."""
    if layer.act not in ACTIVATIONS or not readable(layer.gate_up, layer.down):
        return None
    return NativeGatedMLP(layer, query.dtype == "float32")


class NativeGatedMLP:
    """Norm to down projection in one call."""

    def __init__(self, layer: Any, is_float: bool) -> None:
        self._is_float = is_float
        self._run = library.with_threads().native_gated_mlp
        self._record = library.MlpLayer(
            hidden=layer.hidden,
            inner=layer.intermediate,
            norm=norm_record(layer.norm),
            post_norm=norm_record(layer.post_norm),
            gate_up=linear_record(layer.gate_up),
            down=linear_record(layer.down),
            act=ACTIVATIONS[layer.act],
        )

    def __call__(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        first = residual is None
        out, residual = (torch.empty_like(x), x) if residual is None else (x, residual)
        self._run(self._is_float, byref(self._record), x.shape[0], out.data_ptr(), residual.data_ptr(), first)
        return out, residual
