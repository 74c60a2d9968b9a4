"""Paged attention through FlashInfer for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_flashinfer.library import INSTALL, missing

HOOK_API = 1

_DTYPES = ("bfloat16", "float16")
_HEAD_SIZES = (64, 128, 256)


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "flashinfer", "FlashInfer's paged kernels, compiled by nvcc at first use")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_flashinfer.settings:Settings"


@hookimpl
def attention_backend(query: AttentionQuery, settings: Any) -> Offer | Refusal | None:
    if reason := _refusal(query):
        return Refusal(reason, name="flashinfer")
    if reason := missing():
        return Refusal(reason, name="flashinfer", remedy=INSTALL)
    return Offer(
        name="flashinfer",
        target="vllm_plugin_flashinfer.backend:FlashInferAttention",
        # For those who ask: it was not tried on a device yet, and as its work is divided on the host once a step,
        # steps run op by op and never from a captured graph.
        rank=Rank.REFERENCE,
        takes={"kv.page_layout": ("NHD", "HND")},
        capabilities=frozenset({"lse"}),
        options={"workspace_mib": settings.workspace_mib},
    )


def _refusal(query: AttentionQuery) -> str:
    """What of the query FlashInfer cannot serve, whatever is installed; "" if nothing."""
    device = query.device
    if device.type != "cuda":
        return f"FlashInfer has kernels for CUDA only, and the device is {device.type}"
    if device.capability is not None and device.capability < (8, 0):
        return "FlashInfer needs compute capability 8.0, and {}.{} is what the device has".format(*device.capability)
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.dtype not in _DTYPES:
        return f"dtype {query.dtype} is not one of {', '.join(_DTYPES)}"
    if query.kv_dtype != query.dtype:
        return f"the cache must have the model's dtype, and is {query.kv_dtype} beside {query.dtype}"
    if query.k_dim != query.v_dim:
        return f"keys and values must be of one size, and are of {query.k_dim} and {query.v_dim}"
    if query.k_dim not in _HEAD_SIZES:
        return f"heads of {query.k_dim} elements are not served, only of {', '.join(map(str, _HEAD_SIZES))}"
    return ""
