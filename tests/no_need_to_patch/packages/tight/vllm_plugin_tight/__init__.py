"""A cache of one byte a number. Importing this module must not import torch."""

from vllm_core.interfaces.queries import AttentionQuery, CacheLayoutQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("attention_backend", "tight", "keys and values in int8, with a scale a head and token"),
        Provides("kv_cache_layout", "int8-rows", "int8 and scales, token by token"),
    ]


@hookimpl
def attention_backend(query: AttentionQuery) -> Offer | Refusal | None:
    if query.kind not in ("full", "sliding_window"):
        return Refusal(f"{query.kind} caches have no keys and values of heads", name="tight")
    # It rounds, so nobody gets it who does not name it: at this rank the core's own goes before.
    takes = {"kv.page_layout": ("int8-rows",)}
    return Offer(name="tight", target="vllm_plugin_tight.backend:Tight", rank=Rank.REFERENCE, takes=takes)


@hookimpl
def kv_cache_layout(query: CacheLayoutQuery) -> Offer | None:
    if query.layout != "int8-rows":
        return None
    gives = {"kv.page_layout": "int8-rows"}
    return Offer(name="int8-rows", target="vllm_plugin_tight.layout:Int8Rows", gives=gives)
