"""The fields of ``/v1/responses``: OpenAI's and vLLM's. null: as if left out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from vllm_plugin_server.ignored import IGNORED
from vllm_plugin_server.limits import bound
from vllm_plugin_server.sampling import StructuredOutputs

__all__ = ["Reasoning", "ResponsesCount", "ResponsesRequest", "TextConfig", "TextFormat"]

Name = Annotated[str, bound("name")]
Label = Annotated[str, bound("label")]
Table = Annotated[dict[str, Any], bound("metadata")]
StopText = Annotated[str, bound("stop_string")]

IGNORED["/v1/responses"] = {
    "access_programs": "there are no programs",
    "background_options": "the background has one pace",
    "context_management": "the conversation stays as it was sent",
    "image": "answers are text",
    "kv_transfer_params": "there is one engine and no transfer of caches",
    "max_tool_calls": "it counts calls of tools that OpenAI runs",
    "mm_processor_kwargs": "images, audio and video are not supported yet",
    "moderation": "there is no moderation",
    "personality": "models are told by their prompt",
    "prompt_cache_key": "prefixes are found by their tokens; cache_salt keeps them apart",
    "prompt_cache_options": "the prefix cache decides",
    "prompt_cache_retention": "the prefix cache decides",
    "request_id": "ids are the server's own; the header X-Request-Id gives a label",
    "safety_identifier": "nothing is kept by user",
    "service_tier": "there is one tier",
    "stream_options": "nothing is obfuscated",
    "user": "nothing is kept by user",
}
IGNORED["/v1/responses/input_tokens"] = IGNORED["/v1/responses"]


class Reasoning(msgspec.Struct, kw_only=True):
    """``effort`` is for the chat template. No summaries are made: reasoning is given as it is."""

    effort: Label | None = None
    summary: Label | None = None
    generate_summary: Label | None = None
    context: Label | None = None
    mode: Label | None = None


class TextFormat(msgspec.Struct, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, kw_only=True):
    format: TextFormat | None = None
    verbosity: Label | None = None


class EventOptions(msgspec.Struct, kw_only=True):
    include_obfuscation: bool | None = None


class ResponsesCount(msgspec.Struct, kw_only=True):
    """A conversation, and how it is put to the model."""

    input: str | Annotated[list[Any], bound("messages")]
    model: Name | None = None
    instructions: str | None = None
    previous_response_id: Label | None = None
    conversation: Any = None  # refused if there is one
    prompt: Any = None  # refused if there is one
    tools: Annotated[list[Any], bound("tools")] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: Table | None = None  # vLLM's
    personality: Label | None = None


class ResponsesRequest(ResponsesCount, kw_only=True):
    """A conversation to answer."""

    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: Annotated[list[Label], bound("metadata")] | None = None
    metadata: Annotated[dict[str, Label], bound("metadata")] | None = None
    max_output_tokens: Annotated[int, bound("max_completion_tokens")] | None = None
    temperature: Annotated[float, bound("temperature")] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None

    # vLLM's
    top_k: Annotated[int, bound("top_k")] | None = None
    min_p: Annotated[float, bound("min_p")] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    presence_penalty: Annotated[float, bound("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, bound("frequency_penalty")] | None = None
    logit_bias: Annotated[dict[str, float], bound("logit_bias")] | None = None
    seed: Annotated[int, bound("seed")] | None = None
    stop: StopText | Annotated[list[StopText], bound("stop")] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    include_reasoning: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    vllm_xargs: Table | None = None
    priority: Annotated[int, bound("priority")] | None = None
    cache_salt: Label | None = None
    enable_response_messages: bool | None = None  # refused if true
    previous_input_messages: Any = None  # refused if there are any
    previous_response: Any = None  # refused if there is one

    # Without effect: IGNORED says why.
    access_programs: Table | None = None
    background_options: Table | None = None
    context_management: Any = None
    image: Table | None = None
    kv_transfer_params: dict[str, Any] | None = None
    max_tool_calls: Annotated[int, bound("max_tokens")] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    moderation: Table | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_options: Table | None = None
    prompt_cache_retention: Label | None = None
    request_id: Label | None = None
    safety_identifier: Label | None = None
    service_tier: Label | None = None
    stream_options: EventOptions | None = None
    user: Label | None = None
