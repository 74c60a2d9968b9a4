"""A patient attention backend with settings. Importing this module must not import torch."""

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("attention_backend", "slowpoke", "the core's reference, after a pause")]


@hookimpl
def settings() -> str:
    return "vllm_plugin_slowpoke.settings:Settings"


@hookimpl
def attention_backend(query: AttentionQuery, settings) -> Offer | Refusal | None:
    if query.window is not None and not settings.windows:
        return Refusal(
            f"a window of {query.window} tokens makes it nervous",
            name="slowpoke",
            remedy="--plugin.slowpoke.windows true",
        )
    return Offer(
        name="slowpoke",
        target="vllm_plugin_slowpoke.backend:Slowpoke",
        rank=Rank.TUNED,
        takes={"kv.page_layout": ("NHD",)},
        options={"pause_ms": settings.pause_ms, "log": settings.log},
    )
