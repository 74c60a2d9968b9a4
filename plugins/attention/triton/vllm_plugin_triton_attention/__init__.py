"""Paged attention in Triton for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1

_DTYPES = ("float32", "bfloat16", "float16")
_CACHE_DTYPES = ("float8_e4m3fn", "float8_e5m2")
_LARGEST_HEAD, _LARGEST_GROUP = 256, 64


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "triton", "paged attention in Triton, on CUDA GPUs since sm_80")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_triton_attention.settings:Settings"


@hookimpl
def attention_backend(query: AttentionQuery, settings: Any) -> Offer | Refusal | None:
    if reason := _refusal(query):
        return Refusal(reason, name="triton")
    invariant = settings.batch_invariant or query.batch_invariant
    return Offer(
        name="triton",
        target="vllm_plugin_triton_attention.backend:TritonAttention",
        rank=Rank.TUNED,
        takes={"kv.page_layout": ("HND", "NHD")},
        capabilities=("lse", "graph", "device_metadata", *(["batch_invariant"] if invariant else [])),
        # Best first: pages of 64 tokens hold whole tiles of keys, which the copy engine of sm_90 fetches.
        options={"block_sizes": (64, 32, 16, 128), "batch_invariant": invariant},
    )


def _refusal(query: AttentionQuery) -> str:
    device, group = query.device, query.num_heads // query.num_kv_heads
    if device.type != "cuda":
        return f"Triton compiles for CUDA GPUs, and the device is {device.type}"
    if device.capability is not None and device.capability < (8, 0):
        return f"it is made for GPUs since sm_80, and this one is sm_{device.capability[0]}{device.capability[1]}"
    if find_spec("triton") is None:
        return "it needs triton, which comes with CUDA builds of torch and is not installed"
    if query.kind not in ("full", "sliding_window"):
        return f"{query.kind} caches are not served, only full and sliding_window ones"
    if query.dtype not in _DTYPES:
        return f"dtype {query.dtype} is not one of {', '.join(_DTYPES)}"
    if query.kv_dtype != query.dtype and query.kv_dtype not in _CACHE_DTYPES:
        return f"a cache of {query.kv_dtype} is neither the model's {query.dtype} nor {' nor '.join(_CACHE_DTYPES)}"
    if query.kv_dtype == "float8_e4m3fn" and device.capability is not None and device.capability < (8, 9):
        return "float8_e4m3fn needs sm_89, float8_e5m2 does not"
    if max(query.k_dim, query.v_dim) > _LARGEST_HEAD:
        return f"heads of more than {_LARGEST_HEAD} elements do not fit a multiprocessor's registers"
    if group > _LARGEST_GROUP:
        return f"{group} query heads read one KV head, at most {_LARGEST_GROUP} are computed together"
    return ""
