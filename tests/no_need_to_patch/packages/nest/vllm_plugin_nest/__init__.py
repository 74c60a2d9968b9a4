"""Checkpoints in .nest files. Importing this module must not import torch."""

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import Offer, Provides, Refusal, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("weight_format", "nest", "one compressed .nest file")]


@hookimpl
def weight_format(query: WeightFormatQuery) -> Offer | Refusal | None:
    files = [name for name in query.files if name.endswith(".nest")]
    if not files:
        return None
    if len(files) > 1:
        return Refusal(f"{query.path} holds {len(files)} .nest files; name one of them as the model", name="nest")
    return Offer(name="nest", target="vllm_plugin_nest.checkpoint:NestCheckpoint")
