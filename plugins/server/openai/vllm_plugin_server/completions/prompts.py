"""The prompts of a body, however they are written, as token ids."""

from __future__ import annotations

from typing import Any

import attrs
from starlette.requests import Request

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import Prompt
from vllm_plugin_server.completions.wire import CompletionRequest
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.generation import cache_salt, check_text
from vllm_plugin_server.limits import most

__all__ = ["read_prompts"]


async def read_prompts(context: ServerContext, request: Request, body: CompletionRequest) -> list[Prompt]:
    """At least one. ``ApiError`` 400 for what is none."""
    if body.prompt_embeds is not None:
        raise bad_request("prompt_embeds are not supported", "prompt_embeds")
    if body.prompt is None:
        raise bad_request("prompt is missing", "prompt", "missing_field")
    given: list[Any] = [body.prompt] if isinstance(body.prompt, str) or _is_ids(body.prompt) else list(body.prompt)
    if not given:
        raise bad_request("prompt is an empty list; it must hold at least one prompt", "prompt")
    if len(given) > most("prompts"):
        raise bad_request(f"prompt holds {len(given)} prompts; at most {most('prompts')} are allowed", "prompt")
    kinds = {type(item) for item in given}
    if len(kinds) > 1 or int in kinds:
        raise bad_request("prompt must be texts or lists of token ids, not both in one list", "prompt")
    size = sum(map(len, given))
    if size > most("prompt_ids") and str not in kinds:
        raise bad_request(f"prompt holds more than {most('prompt_ids'):,} token ids", "prompt")
    special = True if body.add_special_tokens is None else body.add_special_tokens
    prompts = await context.work(_read, context, given, special, size=size)
    salt = cache_salt(request, body.cache_salt)
    return [attrs.evolve(prompt, cache_salt=salt) for prompt in prompts]


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and set(map(type, prompt)) == {int}


def _read(context: ServerContext, given: list[Any], special: bool) -> list[Prompt]:
    vocabulary = context.engine.ready.vocab_size
    found = []
    for item in given:
        if isinstance(item, str):
            check_text(context, len(item), "prompt")
        prompt = context.engine.read_prompt(item, add_special_tokens=special)
        if not prompt.token_ids:
            raise bad_request("the prompt is empty; give it at least one token", "prompt")
        if not isinstance(item, str):
            wrong = min(item) if min(item) < 0 else max(item)
            if not 0 <= wrong < vocabulary:
                raise bad_request(f"token id {wrong} is not in the vocabulary of {vocabulary} tokens", "prompt")
        found.append(prompt)
    return found
