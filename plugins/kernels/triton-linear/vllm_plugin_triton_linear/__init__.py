"""Batch-invariant products for vllm-core on GPUs. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1

NAME = "triton-invariant"
_DTYPES = ("bfloat16", "float16", "float32")


@hookimpl
def provides() -> list[Provides]:
    return [Provides("op_kernel", NAME, "products whose results do not depend on the batch, for --batch-invariant")]


@hookimpl
def op_kernel(query: OpQuery) -> Offer | Refusal | None:
    """Only where invariance is asked for: a vendor's library is faster and needs no offer."""
    if query.op != "linear" or query.device.type != "cuda" or not query.batch_invariant:
        return None
    capability = query.device.capability
    if capability is not None and capability < (8, 0):
        return Refusal(f"needs compute capability 8.0, the device has {capability[0]}.{capability[1]}", name=NAME)
    if query.dtype not in _DTYPES:
        return Refusal(f"multiplies {', '.join(_DTYPES)}, not {query.dtype}", name=NAME)
    return Offer(
        name=NAME,
        target="vllm_plugin_triton_linear.linear:invariant_linear",
        rank=Rank.PORTABLE,
        capabilities=frozenset({"graph", "batch_invariant"}),
    )
