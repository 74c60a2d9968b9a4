"""How many tokens a request took, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import RequestOutput

__all__ = ["usage", "usage_of", "usage_wanted"]


def usage(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    """``cached``: tokens of the prompt that the prefix cache had; None: not told."""
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached is not None:
        found["prompt_tokens_details"] = {"cached_tokens": cached}
    return found


def usage_wanted(context: ServerContext, options: Any) -> bool:
    """Whether a stream ends with its usage; ``options``: its ``stream_options``, or None."""
    return bool(options is not None and options.include_usage) or context.settings.enable_force_include_usage


def usage_of(outputs: Iterable[RequestOutput], details: bool) -> dict[str, Any]:
    """Of all outputs of one HTTP request; a prompt counts once, however many outputs it has."""
    known = list(outputs)
    return usage(
        sum(len(output.prompt_token_ids) for output in known),
        sum(len(completion.token_ids) for output in known for completion in output.outputs),
        sum(output.num_cached_tokens for output in known) if details else None,
    )
