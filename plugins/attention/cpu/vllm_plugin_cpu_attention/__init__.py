"""Paged attention on CPUs for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1

_DTYPES = ("float32", "bfloat16", "float16")


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "cpu", "paged attention on processors, through torch's flash kernel")]


@hookimpl
def attention_backend(query: AttentionQuery) -> Offer | Refusal | None:
    if query.device.type != "cpu":
        return None
    if reason := _refusal(query):
        return Refusal(reason, name="cpu", remedy="the core's reference backend serves it")
    return Offer(
        name="cpu",
        target="vllm_plugin_cpu_attention.backend:CpuAttention",
        rank=Rank.PORTABLE,
        takes={"kv.page_layout": ("NHD",)},
        capabilities=("lse",),
    )


def _refusal(query: AttentionQuery) -> str:
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.dtype not in _DTYPES:
        return f"dtype {query.dtype} is not one of {', '.join(_DTYPES)}"
    if query.kv_dtype != query.dtype:
        return f"the cache must have the model's dtype, and is {query.kv_dtype} beside {query.dtype}"
    return ""
