"""GGUF checkpoints for vllm-core. Importing this module must not import torch or gguf."""

from __future__ import annotations

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("weight_format", "gguf", "GGUF files, dequantized while they are loaded")]


@hookimpl
def weight_format(query: WeightFormatQuery) -> Offer | Refusal | None:
    files = [name for name in query.files if name.lower().endswith(".gguf")]
    models = [name for name in files if not name.rpartition("/")[2].startswith("mmproj")]  # an image encoder beside it
    if not models:
        return None
    if len(models) > 1:
        shown = ", ".join(models[:6])
        return Refusal(
            f"{query.path} holds {len(models)} GGUF files: {shown}{', ...' if len(models) > 6 else ''}",
            remedy=f"name the file as the model, as in {query.path.rstrip('/')}/{models[0]}",
        )
    return Offer(name="gguf", target="vllm_plugin_gguf.checkpoint:GgufCheckpoint", rank=Rank.PORTABLE)
