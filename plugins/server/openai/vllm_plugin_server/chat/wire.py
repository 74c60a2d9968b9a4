"""The fields of ``/v1/chat/completions``: OpenAI's and vLLM's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from vllm_plugin_server.limits import bound
from vllm_plugin_server.sampling import Sampling, Text

__all__ = ["ChatRequest", "Conversing", "Message", "ResponseFormat", "Tool", "ToolChoice"]

Name = Annotated[str, bound("name")]


class Part(msgspec.Struct, kw_only=True):
    """Of a message's content. Only texts are supported yet; the others are refused by name."""

    type: Name = "text"
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None
    image_url: Any = None
    input_audio: Any = None
    audio_url: Any = None
    video_url: Any = None
    file: Any = None
    image_embeds: Any = None
    uuid: Text | None = None
    annotations: Any = None
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None


class CalledFunction(msgspec.Struct, kw_only=True):
    name: Name
    arguments: str | dict[str, Any] = ""


class CalledTool(msgspec.Struct, kw_only=True):
    """A call that an earlier answer made."""

    function: CalledFunction
    id: Text | None = None
    type: Name = "function"
    index: int | None = None


class Message(msgspec.Struct, kw_only=True):
    role: Name
    content: str | Annotated[list[str | Part], bound("parts")] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[CalledTool], bound("tool_calls")] | None = None
    tool_call_id: Text | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tools: Any = None


class Function(msgspec.Struct, kw_only=True):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, kw_only=True):
    function: Function | None = None
    type: Name = "function"
    custom: Any = None


class NamedFunction(msgspec.Struct, kw_only=True):
    name: Name


class ToolChoice(msgspec.Struct, kw_only=True):
    """A tool that must be called."""

    function: NamedFunction | None = None
    type: Name = "function"
    custom: Any = None
    allowed_tools: Any = None


class JsonSchema(msgspec.Struct, kw_only=True):
    schema: dict[str, Any] | bool | None = None
    name: Name | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """What the answer must conform to: text, json_object, json_schema or structural_tag."""

    type: Name
    json_schema: JsonSchema | None = None
    structures: Any = None
    triggers: Any = None
    format: Any = None


Messages = Annotated[list[Message], bound("messages")]
Tools = Annotated[list[Tool], bound("tools")]
Template = Annotated[str, bound("chat_template")]
Arguments = Annotated[dict[str, Any], bound("metadata")]
Documents = Annotated[list[dict[str, Any]], bound("parts")]


class Conversing(msgspec.Struct, kw_only=True):
    """What makes a prompt of a conversation. ``ChatRequest`` has the same fields."""

    messages: Messages | None = None
    tools: Tools | None = None
    chat_template: Template | None = None
    chat_template_kwargs: Arguments | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Documents | None = None
    reasoning_effort: Text | None = None
    add_special_tokens: bool | None = None


class ChatRequest(Sampling):
    """A conversation to answer."""

    messages: Messages
    tools: Tools | None = None
    tool_choice: Text | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: Annotated[int, bound("max_completion_tokens")] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, bound("top_logprobs")] | None = None
    echo: bool | None = None
    include_reasoning: bool | None = None
    reasoning_effort: Text | None = None
    chat_template: Template | None = None
    chat_template_kwargs: Arguments | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Documents | None = None
    modalities: Annotated[list[Text], bound("parts")] | None = None

    # Without effect: `ignored` says why.
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
