"""Paged attention through torch's flex_attention for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_flex_attention.toolchain import missing_compiler

HOOK_API = 1

_DTYPES = ("float32", "bfloat16", "float16")
_LARGEST_HEAD = 512
_UNFUSED = "--plugin.flex-attention.compile false runs torch's unfused version, which is slow"


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "flex", "torch's flex_attention, compiled when first used")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_flex_attention.settings:Settings"


@hookimpl
def attention_backend(query: AttentionQuery, settings: Any) -> Offer | Refusal | None:
    if query.device.type not in ("cpu", "cuda"):
        return None
    if reason := _refusal(query):
        return Refusal(reason, name="flex")
    if settings.compile and (reason := _refusal_to_compile(query)):
        return Refusal(reason, name="flex", remedy=_UNFUSED)
    more = ["lse"] if query.device.type == "cuda" or not settings.compile else []
    return Offer(
        name="flex",
        target="vllm_plugin_flex_attention.backend:FlexAttention",
        # Each new kind of batch waits seconds for a compiler, in the middle of serving: only for those who ask for it.
        rank=Rank.REFERENCE,
        takes={"kv.page_layout": ("NHD",)},
        capabilities=frozenset(more),
        options={"compile": settings.compile},
    )


def _refusal(query: AttentionQuery) -> str:
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.dtype not in _DTYPES:
        return f"dtype {query.dtype} is not one of {', '.join(_DTYPES)}"
    if query.kv_dtype != query.dtype:
        return f"the cache must have the model's dtype, and is {query.kv_dtype} beside {query.dtype}"
    return ""


def _refusal_to_compile(query: AttentionQuery) -> str:
    if reason := missing_compiler(query.device):
        return reason
    if query.device.type == "cpu" and query.sinks:
        return "sinks need log-sum-exp, which torch's compiled flex_attention does not return on CPUs"
    if query.device.type == "cuda" and min(query.k_dim, query.v_dim) < 16:
        return f"Triton multiplies heads of at least 16 elements, not {min(query.k_dim, query.v_dim)}"
    if query.device.type == "cuda" and max(query.k_dim, query.v_dim) > _LARGEST_HEAD:
        return f"heads of more than {_LARGEST_HEAD} elements do not fit the memory of a GPU's multiprocessor"
    return ""
