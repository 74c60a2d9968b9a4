"""What other plugins' routes import: bodies, errors, streams, and the way through the engine.

A plugin lists its routes through the hook ``http_endpoints``; limits, keys, errors and ids are the server's for them,
too. ``vllm_plugin_server.tokens`` is a small example.
"""

from __future__ import annotations

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import Conversation, Prompt, RequestOutput, SamplingParams
from vllm_plugin_server.body import read_body, to_record
from vllm_plugin_server.boundary import Exchange, new_id
from vllm_plugin_server.chat.job import ChatJob, tool_deltas
from vllm_plugin_server.chat.prompt import read_conversation, render
from vllm_plugin_server.chat.route import chat_params
from vllm_plugin_server.chat.wire import ChatRequest, Conversing
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import ApiError, bad_request, error_body, error_of
from vllm_plugin_server.generation import check_length, generate, generate_all, model_of
from vllm_plugin_server.ignored import IGNORED
from vllm_plugin_server.limits import LIMITS, Limit, bound, most
from vllm_plugin_server.observe import Call
from vllm_plugin_server.response_format import format_of, take_format
from vllm_plugin_server.sampling import Sampling, sampling_fields, sampling_params
from vllm_plugin_server.stream import DONE, EventStream, after, event, json_answer
from vllm_plugin_server.usage import usage, usage_of

__all__ = [
    "DONE", "IGNORED", "LIMITS", "ApiError", "Call", "ChatJob", "ChatRequest", "Conversation", "Conversing",
    "EventStream", "Exchange", "Limit", "Prompt", "RequestOutput", "Sampling", "SamplingParams", "ServerContext",
    "after", "bad_request", "bound", "chat_params", "check_length", "describe", "error_body", "error_of", "event",
    "format_of", "generate", "generate_all", "json_answer", "model_of", "most", "new_id", "read_body",
    "read_conversation", "render", "sampling_fields", "sampling_params", "take_format", "to_record", "tool_deltas",
    "usage", "usage_of",
]  # fmt: skip
