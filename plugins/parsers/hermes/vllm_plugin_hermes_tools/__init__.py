"""Tool calls in the format of Hermes for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

import re

from vllm_core.interfaces.queries import ParserQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1

# In a Jinja string a line break is written \n and a quotation mark \"; other formats between the same tags are XML.
_SHOWS_JSON = re.compile(r"""<tool_call>(?:\s|\\n)*\{+\s*\\?["'](?:name|arguments)\\?["']""")


@hookimpl
def provides() -> list[Provides]:
    return [Provides("tool_parser", "hermes", "<tool_call>{JSON}</tool_call>: Hermes 2 and 3, Qwen2.5, Qwen3")]


@hookimpl
def tool_parser(query: ParserQuery) -> Offer | None:
    if query.name == "hermes" or (not query.name and _SHOWS_JSON.search(query.chat_template)):
        return Offer(name="hermes", target="vllm_plugin_hermes_tools.parser:HermesToolParser")
    return None
