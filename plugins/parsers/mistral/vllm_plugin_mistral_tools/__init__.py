"""Tool calls in Mistral's formats for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import ParserQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1


@hookimpl
def provides() -> list[Provides]:
    return [Provides("tool_parser", "mistral", "[TOOL_CALLS] with a JSON array, or with NAME[ARGS]{JSON}")]


@hookimpl
def tool_parser(query: ParserQuery) -> Offer | None:
    if query.name == "mistral" or (not query.name and "[TOOL_CALLS]" in query.chat_template):
        return Offer(name="mistral", target="vllm_plugin_mistral_tools.parser:MistralToolParser")
    return None
