"""The one place where prompts enter the engine, and where observers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import Conversation, Prompt, RequestOutput, SamplingParams
from vllm_plugin_server.errors import ApiError, bad_request, field_of, no_memory, refusal
from vllm_plugin_server.limits import most
from vllm_plugin_server.observe import Call, tell, trace_headers

__all__ = ["cache_salt", "check_length", "check_text", "generate", "generate_all", "model_of"]

NO_MEMORY = ("not enough memory", "needs more memory", "MemoryError")  # as the engine says it
TURN, PER_PROMPT = 16_000, 500  # token ids of prompts that begin in one turn of the loop; what a prompt costs beside
LEAST_TEXT = 200_000  # characters: a text that short costs little, whatever the model


def model_of(context: ServerContext, name: str | None) -> str:
    """The served name that a request means; without one, the first. ``ApiError`` 404 for another."""
    if not name:
        return next(iter(context.models))
    if name not in context.models:
        raise ApiError(
            404, f"the model {name[:120]!r} does not exist here; there is {', '.join(context.models)}",
            type="invalid_request_error", param="model", code="model_not_found",
        )  # fmt: skip
    return name


def cache_salt(request: Request, given: str | None) -> str:
    """Cached prefixes are shared among requests with one key only, and of those among equal ``given`` ones.

    Otherwise how fast an answer begins would tell what others have asked.
    """
    key = request.state.key[:16]
    return f"{key}/{given or ''}"[: most("label")] if key else given or ""


def check_text(context: ServerContext, characters: int, param: str) -> None:
    """Whether a text is worth tokenizing, which takes some hundred bytes of memory a character. ``ApiError`` 400."""
    longest = context.engine.ready.longest
    if characters > min(most("characters"), max(LEAST_TEXT, 64 * longest)):
        raise bad_request(
            f"This model's maximum context length is {longest} tokens. However, your {param} has {characters} "
            "characters.",
            param,
            "context_length_exceeded",
        )


def check_length(context: ServerContext, tokens: int, params: SamplingParams, param: str) -> None:
    """Whether a prompt and its longest output fit. ``ApiError`` 400 in the words that clients look for."""
    longest = context.engine.ready.longest
    cut = params.truncate_prompt_tokens
    if cut is not None:
        tokens = min(tokens, cut if cut > 0 else max(1, longest - (params.max_tokens or 1)))
    asked = params.max_tokens or 1
    if tokens + asked <= longest:
        if tokens + params.min_tokens > longest:
            raise bad_request(
                f"min_tokens={params.min_tokens} do not fit: with {tokens} tokens in the {param} at most "
                f"{longest - tokens} are left of {longest}", "min_tokens",
            )  # fmt: skip
        return
    most_output = longest - tokens
    raise bad_request(
        f"This model's maximum context length is {longest} tokens. However, you requested {tokens + asked} tokens "
        f"({tokens} in the {param}, {asked} in the completion)."
        + (
            f" max_tokens may be at most {most_output} here."
            if most_output > 0
            else " Reduce the length of the prompt."
        ),
        field_of("max_tokens") if most_output > 0 else param,
        "context_length_exceeded",
    )


async def generate(
    context: ServerContext,
    request: Request,
    prompt: Prompt | Conversation,
    params: SamplingParams,
    *,
    stream: bool,
    priority: int = 0,
    index: int = 0,
) -> AsyncIterator[RequestOutput]:
    """Outputs of one prompt, as ``AsyncLLM.generate`` gives them. A request that fails is an ``ApiError``."""
    ids = (prompt.prompt if isinstance(prompt, Conversation) else prompt).token_ids
    call = Call(
        f"{request.state.request_id}-{index}",
        request.state.route,
        next(iter(context.models)),
        len(ids),
        params,
        trace_headers(request.headers),
    )
    tell(context.observers, "began", call)
    outputs = context.engine.generate(prompt, params, call.request_id, priority=priority, stream=stream)
    output, reason = None, "abort"
    try:
        async with aclosing(outputs) as running:  # type: ignore[type-var]
            async for output in running:
                if context.observers:
                    tell(context.observers, "output", call, output)
                if output.finished:
                    reason = _reason(output)
                    if reason == "error":
                        raise _failed(output.error)
                yield output
    except (GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException:
        reason = "error"
        raise
    finally:
        tell(context.observers, "ended", call, reason, output)


def _failed(error: str) -> ApiError:
    if any(words in error for words in NO_MEMORY):
        return no_memory(error)
    if " while its text was made" in error:  # our own code
        return ApiError(500, "the server failed at this request; its log says why")
    return refusal(error or "the engine could not serve the request")


def _reason(output: RequestOutput) -> str:
    reasons = [completion.finish_reason or "abort" for completion in output.outputs]
    return "error" if "error" in reasons else reasons[0]


async def generate_all(
    context: ServerContext,
    request: Request,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    stream: bool,
    priority: int = 0,
) -> AsyncIterator[tuple[int, RequestOutput]]:
    """(index of the prompt, its output), of several prompts at once, as they come. Leaving ends them all."""
    outputs = len(prompts) * params.n
    if outputs > most("sequences"):
        raise bad_request(f"the request asks for {outputs} outputs; at most {most('sequences')} are allowed", "n")
    with context.admission.hold(outputs):
        if len(prompts) == 1:
            async with aclosing(
                generate(context, request, prompts[0], params, stream=stream, priority=priority)
            ) as running:
                async for output in running:
                    yield 0, output
            return
        async with aclosing(_merged(context, request, prompts, params, stream=stream, priority=priority)) as merged:
            async for item in merged:
                yield item


async def _merged(
    context: ServerContext, request: Request, prompts: Sequence[Prompt], params: SamplingParams, **how: Any
) -> AsyncIterator[tuple[int, RequestOutput]]:
    # Full while the client is slow: then the engine's desk keeps the newest output only.
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(len(prompts))

    async def run(index: int) -> None:
        try:
            async with aclosing(generate(context, request, prompts[index], params, index=index, **how)) as running:
                async for output in running:
                    await queue.put((index, output))
        except Exception as error:
            await queue.put((index, error))
        await queue.put((index, None))

    tasks, ids, left = [], 0, len(prompts)
    try:
        for i, prompt in enumerate(prompts):
            tasks.append(asyncio.ensure_future(run(i)))
            ids += PER_PROMPT + len(prompt.token_ids)
            if ids > TURN:  # let others go on: all that begin in one turn of the loop hold it together
                ids = 0
                await asyncio.sleep(0)
        while left:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
