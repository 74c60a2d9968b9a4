"""``/tokenize`` and ``/detokenize``, as vLLM has them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_plugin_server.body import read_body
from vllm_plugin_server.chat.prompt import read_conversation
from vllm_plugin_server.chat.wire import Conversing
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.generation import check_text, model_of
from vllm_plugin_server.limits import bound
from vllm_plugin_server.stream import json_answer

__all__ = ["detokenize", "tokenize"]


class TokenizeRequest(Conversing):
    """A text (``prompt``) or a conversation (``messages``)."""

    model: Annotated[str, bound("name")] | None = None
    prompt: str | None = None
    return_token_strs: bool | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """Token ids to make text of."""

    tokens: Annotated[list[Annotated[int, bound("token_id")]], bound("detokenized_ids")]
    model: Annotated[str, bound("name")] | None = None


class TokenizeAnswer(msgspec.Struct, kw_only=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeAnswer(msgspec.Struct, kw_only=True):
    prompt: str


def tokenize(context: ServerContext) -> Any:
    @describe(body=TokenizeRequest, answer=TokenizeAnswer)
    async def tokenize(request: Request) -> Response:
        body = await read_body(request, TokenizeRequest, context)
        model_of(context, body.model)
        if (body.prompt is None) == (body.messages is None):
            raise bad_request("one of prompt and messages is needed", "prompt")
        engine = context.engine
        if body.messages is not None:
            found = (await read_conversation(context, body)).prompt
        else:
            special = True if body.add_special_tokens is None else body.add_special_tokens
            check_text(context, len(body.prompt), "prompt")
            found = await context.work(
                engine.read_prompt, body.prompt, add_special_tokens=special, size=len(body.prompt)
            )
        ids, strings = found.token_ids, None
        if body.return_token_strs:
            strings = await context.work(_strings, engine.get_tokenizer(), ids, size=8 * len(ids))
        return json_answer(
            TokenizeAnswer(count=len(ids), max_model_len=engine.ready.longest, tokens=ids, token_strs=strings)
        )

    return tokenize


def _strings(tokenizer: Any, ids: list[int]) -> list[str]:
    """As the vocabulary has them, which tells apart what decodes alike; as text where that is not told."""
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        return tokenizer.convert_ids_to_tokens(ids)
    return [tokenizer.decode([i], skip_special_tokens=False) for i in ids]


def detokenize(context: ServerContext) -> Any:
    @describe(body=DetokenizeRequest, answer=DetokenizeAnswer)
    async def detokenize(request: Request) -> Response:
        body = await read_body(request, DetokenizeRequest, context)
        model_of(context, body.model)
        size = context.engine.ready.vocab_size
        if (largest := max(body.tokens, default=0)) >= size:
            raise bad_request(f"token id {largest} is not in the vocabulary of {size} tokens", "tokens")
        decode = context.engine.get_tokenizer().decode
        text = await context.work(decode, body.tokens, skip_special_tokens=False, size=4 * len(body.tokens))
        return json_answer(DetokenizeAnswer(prompt=text))

    return detokenize
