"""FlashAttention over paged caches for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_flash_attention.engines import CUTE, TORCH, refusal, refusal_of_cute, refusal_of_torch

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    summary = f"FlashAttention: {CUTE}'s paged kernels, or torch's over copied pages"
    return [Provides("attention_backend", "flash-attention", summary)]


@hookimpl
def settings() -> str:
    return "vllm_plugin_flash_attention.settings:Settings"


@hookimpl
def attention_backend(query: AttentionQuery, settings: Any) -> Offer | Refusal | None:
    if reason := refusal(query):
        return Refusal(reason, name="flash-attention")
    against = {name: find(query) for name, find in ((CUTE, refusal_of_cute), (TORCH, refusal_of_torch))}
    engines = [settings.engine] if settings.engine != "auto" else list(against)
    found = next((name for name in engines if not against[name]), None)
    if found is None:
        return Refusal("; ".join(f"{name}: {against[name]}" for name in engines), name="flash-attention")
    if found == CUTE:
        return Offer(
            name="flash-attention",
            target="vllm_plugin_flash_attention.paged:PagedFlashAttention",
            # For those who ask, until it has been tried and measured on a device: so far it was only compiled for one.
            rank=Rank.REFERENCE,
            takes={"kv.page_layout": ("NHD",)},
            capabilities=frozenset({"lse", "graph", "device_metadata"}),
            # Pages that are as large as its tiles would come by TMA, which brings the slots that nobody wrote.
            options={"engine": CUTE, "block_sizes": (16, 32)},
        )
    return Offer(
        name="flash-attention",
        target="vllm_plugin_flash_attention.gathered:GatheredFlashAttention",
        rank=Rank.PORTABLE,
        takes={"kv.page_layout": ("NHD",)},
        capabilities=frozenset({"lse"}),
        options={"engine": TORCH, f"{CUTE} is not used": against[CUTE] or "the setting says so"},
    )
