"""Reasoning between <think> and </think> for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.interfaces.queries import ParserQuery
from vllm_core.plugin import Offer, Provides, hookimpl

HOOK_API = 1
_TARGETS = {"qwen3": "ThinkTags", "deepseek_r1": "ThinkFirst"}


@hookimpl
def provides() -> list[Provides]:
    return [
        Provides("reasoning_parser", "qwen3", "<think>...</think> if output or prompt begins it"),
        Provides("reasoning_parser", "deepseek_r1", "all up to </think>, unless the prompt has ended it"),
    ]


@hookimpl
def reasoning_parser(query: ParserQuery) -> Offer | None:
    name = query.name or _by_template(query.chat_template)
    return Offer(name=name, target=f"vllm_plugin_think.parser:{_TARGETS[name]}") if name in _TARGETS else None


def _by_template(template: str) -> str:
    """Which of the two a model's template asks for; "" if that is in doubt."""
    if "</think>" not in template or "<answer>" in template:  # the latter: tags around the answer, too
        return ""
    if "<\uff5cAssistant\uff5c>" in template:  # DeepSeek: its R1 begins without the tag
        return "deepseek_r1"
    return "qwen3" if "<think>" in template else ""
