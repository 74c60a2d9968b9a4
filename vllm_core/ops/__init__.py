"""Ops: the vocabulary in which layers speak to kernels. Each has a plain torch reference that runs on any device.

Shared by all contracts below unless one says otherwise:

- T is the number of tokens of a step and may differ from call to call; every other size is
  fixed for a layer and is what an ``OpQuery`` tells a kernel beforehand.
- Sums are accumulated in float32 and results rounded once, to the dtype of the input.
- A result may share the storage of an input that the contract says "may be overwritten".
- No op synchronises with the host, so that all may stand in a captured graph.
"""

from vllm_core.ops.activation import gelu, gelu_and_mul, gelu_tanh, gelu_tanh_and_mul, relu, silu_and_mul
from vllm_core.ops.attention import paged_attention
from vllm_core.ops.cache import copy_pages, write_kv
from vllm_core.ops.edits import edit_logits
from vllm_core.ops.linear import argmax, embedding, linear, scaled_linear
from vllm_core.ops.logits import apply_token_bitmask, penalize, token_logprobs
from vllm_core.ops.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from vllm_core.ops.rotary import rotary
from vllm_core.ops.steps import commit_tokens, page_slots, sampling_rows, step_inputs
from vllm_core.ops.table import LAYER_OPS, OPS, Op, op, reference_kernel

__all__ = [
    "LAYER_OPS",
    "OPS",
    "Op",
    "add_layer_norm",
    "add_rms_norm",
    "apply_token_bitmask",
    "argmax",
    "commit_tokens",
    "copy_pages",
    "edit_logits",
    "embedding",
    "gelu",
    "gelu_and_mul",
    "gelu_tanh",
    "gelu_tanh_and_mul",
    "layer_norm",
    "linear",
    "op",
    "page_slots",
    "paged_attention",
    "penalize",
    "reference_kernel",
    "relu",
    "rms_norm",
    "rotary",
    "sampling_rows",
    "scaled_linear",
    "silu_and_mul",
    "step_inputs",
    "token_logprobs",
    "write_kv",
]
