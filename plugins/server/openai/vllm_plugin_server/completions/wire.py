"""The fields of ``/v1/completions``: OpenAI's and vLLM's."""

from __future__ import annotations

from typing import Annotated, Any

from vllm_plugin_server.chat.wire import ResponseFormat
from vllm_plugin_server.limits import bound
from vllm_plugin_server.sampling import Sampling

__all__ = ["CompletionRequest"]


class CompletionRequest(Sampling):
    """Texts to continue: a text, a list of token ids, or a list of these."""

    prompt: str | Annotated[list[str | int | list[int]], bound("prompt_ids")] | None = None
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, bound("logprobs")] | None = None
    response_format: ResponseFormat | None = None
    prompt_embeds: Any = None
