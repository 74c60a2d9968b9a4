"""GGUF checkpoints for vllm-core. Importing this module must not import torch or gguf."""

from __future__ import annotations

from typing import Any

from vllm_core.interfaces.queries import QuantizationQuery, WeightFormatQuery
from vllm_core.plugin import Offer, Provides, Rank, Refusal, hookimpl
from vllm_plugin_gguf.part_names import first_part

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("weight_format", "gguf", "GGUF files, dequantized while they are loaded or kept in blocks"),
        Provides("quantization_method", "gguf", "products with matrices in the blocks of a GGUF file"),
    ]


@hookimpl
def settings() -> str:
    return "vllm_plugin_gguf.settings:GgufSettings"


@hookimpl
def weight_format(query: WeightFormatQuery, settings: Any) -> Offer | Refusal | None:
    files = [name for name in query.files if name.lower().endswith(".gguf")]
    models = [name for name in files if not name.rpartition("/")[2].startswith("mmproj")]  # an image encoder beside it
    if not models:
        return None
    if len(models) > 1 and not first_part(models):
        shown = ", ".join(models[:6])
        return Refusal(
            f"{query.path} holds {len(models)} GGUF files: {shown}{', ...' if len(models) > 6 else ''}",
            remedy=f"name the file as the model, as in {query.path.rstrip('/')}/{models[0]}",
        )
    keep = settings is not None and settings.weights == "keep"
    target = "KeptGgufCheckpoint" if keep else "GgufCheckpoint"
    return Offer(name="gguf", target=f"vllm_plugin_gguf.checkpoint:{target}", rank=Rank.PORTABLE)


@hookimpl
def quantization_method(query: QuantizationQuery) -> Offer | Refusal | None:
    if query.method != "gguf":
        return None
    if "types" not in query.config:
        other = query.config.get("quant_method", "gguf")
        is_not = f"this checkpoint is quantized by {other!r}" if other != "gguf" else "this checkpoint is none"
        return Refusal(
            f"it multiplies with the blocks of a GGUF file, and {is_not}",
            remedy='name a GGUF file as the model and set [plugin.gguf] weights = "keep"; leave --quantization out',
        )
    return Offer(name="gguf", target="vllm_plugin_gguf.kept:GgufQuantization", rank=Rank.PORTABLE)
