"""The bodies of Anthropic's API, as its client writes them. null: as if left out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from vllm_plugin_server.ignored import IGNORED
from vllm_plugin_server.limits import bound

__all__ = ["MessagesCount", "MessagesRequest", "Thinking", "ToolUseChoice"]

Name = Annotated[str, bound("name")]
Label = Annotated[str, bound("label")]
Table = Annotated[dict[str, Any], bound("metadata")]
Blocks = Annotated[list[Any], bound("parts")]

_IGNORED = {
    "metadata": "nothing is kept by user",
    "service_tier": "there is one tier",
    "speed": "there is one speed",
    "inference_geo": "the server is where it is",
    "cache_control": "prefixes are cached by themselves",
    "context_management": "the conversation stays as it was sent",
    "compaction": "the conversation stays as it was sent",
    "diagnostics": "vllm-core explain and /metrics say what there is to say",
    "fallbacks": "there is one model",
    "fallback_credit_token": "nothing is billed",
    "billing_policy": "nothing is billed",
    "user_profile_id": "nothing is kept by user",
    "workspace_id": "nothing is kept by workspace",
    "betas": "what there is needs no header",
    "kv_transfer_params": "there is one engine and no transfer of caches",
}
IGNORED["/v1/messages"] = _IGNORED
IGNORED["/v1/messages/count_tokens"] = _IGNORED


class Thinking(msgspec.Struct, kw_only=True):
    """``budget_tokens`` bounds nothing here, but ``max_tokens`` does. ``display: omitted`` keeps the text back."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, bound("max_tokens")] | None = None
    display: Literal["summarized", "omitted"] | None = None


class ToolUseChoice(msgspec.Struct, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class AnswerFormat(msgspec.Struct, kw_only=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: AnswerFormat | None = None


class MessagesCount(msgspec.Struct, kw_only=True):
    """A conversation, and how it is put to the model."""

    model: Name
    messages: Annotated[list[Any], bound("messages")]
    system: str | Blocks | None = None
    tools: Annotated[list[Any], bound("tools")] | None = None
    tool_choice: ToolUseChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: Table | None = None  # vLLM's
    mcp_servers: list[Any] | None = None  # refused if there are any

    # Without effect: _IGNORED says why.
    metadata: Table | None = None
    service_tier: Label | None = None
    speed: Label | None = None
    inference_geo: Label | None = None
    cache_control: Table | None = None
    context_management: Table | None = None
    compaction: Table | None = None
    diagnostics: Table | None = None
    fallbacks: Any = None
    fallback_credit_token: Any = None
    billing_policy: Any = None
    user_profile_id: Label | None = None
    workspace_id: Label | None = None
    betas: Annotated[list[Label], bound("metadata")] | None = None
    kv_transfer_params: dict[str, Any] | None = None


class MessagesRequest(MessagesCount, kw_only=True):
    """A conversation to answer."""

    max_tokens: Annotated[int, bound("max_completion_tokens")]
    stream: bool | None = None
    stop_sequences: Annotated[list[Annotated[str, bound("stop_string")]], bound("stop")] | None = None
    temperature: Annotated[float, bound("temperature")] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, bound("top_k")] | None = None
    container: Any = None  # refused if there is one
    thread: Any = None  # refused if there is one
