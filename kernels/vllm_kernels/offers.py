"""What this package offers: op -> target and limits. No torch.

Conventions for modules here (tests go through all of them):

- A module that makes a `kernel.Kernel` has a function ``variants() -> list[Variant]`` (`variant.Variant`): each file it
  compiles, with every set of defines that it may ask for and the names that it takes. Its kernels are made from these
  (or from the same defines), so that tests/test_sources.py compiles all of it for sm_80 and sm_90a without a GPU and
  refuses spills; every ``cuda/*.cu`` must be named by somebody.
- Importing a module compiles nothing and needs no GPU; a target's ``__call__(query)`` makes its kernels.
- Figures: ``vllm_kernels/bench/cases_<topic>.py`` has ``cases() -> Iterator[Case]`` (`bench.case.Case`); found by its
  name, run by ``python -m vllm_kernels.bench``. A package elsewhere names its module: ``--cases my_package.cases``.
- A target is named here, in `OPS`, with the capabilities it has and a function ``limits(query)``.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.dtypes import CUDA_NAMES
from vllm_kernels.heads import head_limits
from vllm_kernels.small_tiling import shape_limits
from vllm_kernels.stack_limits import stack_limits

GRAPH = frozenset({"graph"})
INVARIANT = frozenset({"graph", "batch_invariant"})
"""Besides, a row's result does not depend on the other rows of the batch."""


def no_limits(query: OpQuery) -> str:
    return ""


@attrs.frozen
class Entry:
    """``limits`` says why a query cannot be served, or ""."""

    target: str
    limits: Callable[[OpQuery], str] = no_limits
    capabilities: frozenset[str] = GRAPH


def dtype_limits(query: OpQuery) -> str:
    if query.dtype not in CUDA_NAMES:
        return f"dtype {query.dtype} is none of {', '.join(CUDA_NAMES)}"
    return ""


def rotary_limits(query: OpQuery) -> str:
    turned = int(query.shape["rotary_dim"] or 0)  # type: ignore[arg-type]
    return dtype_limits(query) or head_limits(turned, turned, bool(query.shape["interleaved"]))


def cache_limits(query: OpQuery) -> str:
    if reason := dtype_limits(query):
        return reason
    kv_dtype = query.shape.get("kv_dtype") or query.dtype
    if kv_dtype not in (query.dtype, "float8_e4m3fn"):
        return f"a cache of {kv_dtype} is neither of the model's dtype nor float8_e4m3fn"
    return ""


def attention_limits(query: OpQuery) -> str:
    """Of a whole ``DecoderAttention``."""
    shape = query.shape
    if shape["qk_norm"] not in (None, "RMSNorm", "OffsetRMSNorm"):
        return f"qk_norm is a {shape['qk_norm']}, and only RMSNorm is computed together with rotary"
    turned = int(shape["rotary_dim"] or 0)  # type: ignore[arg-type]
    dim = int(shape["head_dim"])  # type: ignore[arg-type]
    return cache_limits(query) or head_limits(dim, turned, bool(shape["interleaved"]))


def product_limits(query: OpQuery) -> str:
    return shape_limits(int(query.shape["in_size"] or 0), int(query.shape["out_size"] or 0), query.dtype)  # type: ignore[arg-type]


_NORMS = ("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm")
_STEPS = ("step_inputs", "page_slots", "sampling_rows", "commit_tokens")
_GATES = ("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul")

OPS: dict[str, Entry] = {
    **{name: Entry(f"vllm_kernels.norm:{name}", dtype_limits, INVARIANT) for name in _NORMS},
    **{name: Entry("vllm_kernels.activation:gated", dtype_limits, INVARIANT) for name in _GATES},
    **{name: Entry("vllm_kernels.activation:alone", dtype_limits, INVARIANT) for name in ("gelu", "gelu_tanh", "relu")},
    "rotary": Entry("vllm_kernels.rotary:rotary", rotary_limits, INVARIANT),
    "write_kv": Entry("vllm_kernels.cache:write_kv", cache_limits, INVARIANT),
    "embedding": Entry("vllm_kernels.rows:embedding", dtype_limits, INVARIANT),
    "copy_pages": Entry("vllm_kernels.rows:copy_pages", capabilities=INVARIANT),
    "argmax": Entry("vllm_kernels.sampling:argmax", dtype_limits, INVARIANT),
    "edit_logits": Entry("vllm_kernels.edits:edit_logits", capabilities=INVARIANT),
    "apply_token_bitmask": Entry("vllm_kernels.edits:apply_token_bitmask", capabilities=INVARIANT),
    "penalize": Entry("vllm_kernels.edits:penalize", capabilities=INVARIANT),
    "token_logprobs": Entry("vllm_kernels.logprobs:Score", dtype_limits, INVARIANT),
    **{name: Entry(f"vllm_kernels.steps:{name}", capabilities=INVARIANT) for name in _STEPS},
    "linear": Entry("vllm_kernels.small_linear:linear", product_limits),
    "decoder_attention": Entry("vllm_kernels.layers:decoder_attention", attention_limits),
    "gated_mlp": Entry("vllm_kernels.layers:gated_mlp", dtype_limits),
    "decoder_stack": Entry("vllm_kernels.stack:decoder_stack", stack_limits),
}

SAMPLER: str | None = "vllm_kernels.sampling:Sampler"
