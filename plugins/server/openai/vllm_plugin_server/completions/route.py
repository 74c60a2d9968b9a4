"""``/v1/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import CompletionOutput, Prompt, RequestOutput, SamplingParams
from vllm_plugin_server.body import read_body
from vllm_plugin_server.boundary import new_id
from vllm_plugin_server.chat.logprobs import prompt_logprobs
from vllm_plugin_server.completions.logprobs import completion_logprobs
from vllm_plugin_server.completions.prompts import read_prompts
from vllm_plugin_server.completions.wire import CompletionRequest
from vllm_plugin_server.describe import describe
from vllm_plugin_server.errors import bad_request
from vllm_plugin_server.generation import check_length, generate_all, model_of
from vllm_plugin_server.response_format import take_format
from vllm_plugin_server.sampling import sampling_fields, sampling_params
from vllm_plugin_server.stream import DONE, EventStream, after, event, json_answer
from vllm_plugin_server.usage import usage, usage_of, usage_wanted

__all__ = ["make"]

DEFAULT_TOKENS = 16  # OpenAI's


def make(context: ServerContext) -> Any:
    @describe(body=CompletionRequest, streams=True, queued=True)
    async def completions(request: Request) -> Response:
        body = await read_body(request, CompletionRequest, context)
        model = model_of(context, body.model)
        params = _params(context, body)
        prompts = await read_prompts(context, request, body)
        for prompt in prompts:
            check_length(context, len(prompt.token_ids), params, "prompt")
        answer = _Answer(context, body, params, model)
        running = generate_all(context, request, prompts, params, stream=bool(body.stream), priority=body.priority or 0)
        if not body.stream:
            last: dict[int, RequestOutput] = {}
            async with aclosing(running) as outputs:
                async for index, output in outputs:
                    last[index] = output
            whole = [last[i] for i in range(len(prompts))]
            return json_answer(await context.work(answer.whole, prompts, whole, size=_size(params, whole)))
        chunks = answer.chunks(prompts, running)
        first = await anext(chunks)  # what the engine refuses is an error with its own status
        return EventStream(after(first, chunks))

    return completions


def _size(params: SamplingParams, outputs: list[RequestOutput]) -> int:
    """Characters to be written, about: log-probabilities of long prompts take their time."""
    if params.prompt_logprobs is None and params.logprobs is None:
        return 0
    return 64 * sum(len(output.prompt_token_ids) + len(output.outputs[0].token_ids) for output in outputs)


def _params(context: ServerContext, body: CompletionRequest) -> SamplingParams:
    fields = sampling_fields(body)
    if body.suffix:
        raise bad_request("suffix is not supported: texts are continued, not filled in", "suffix")
    fields["max_tokens"] = body.max_tokens
    if body.max_tokens == 0:
        if not body.echo:
            raise bad_request("max_tokens must be at least 1, or 0 with echo", "max_tokens")
        fields["max_tokens"] = 1  # the engine ends with a token; it is not shown
    if body.logprobs is not None:
        fields["logprobs"] = body.logprobs
        if body.echo:
            fields.setdefault("prompt_logprobs", body.logprobs)
    if body.prompt_logprobs is not None and body.stream:
        raise bad_request("prompt_logprobs are not streamed", "prompt_logprobs")
    take_format(fields, body.response_format)
    return sampling_params(context, fields, max_tokens=DEFAULT_TOKENS)


class _Answer:
    """What is sent for one request."""

    def __init__(self, context: ServerContext, body: CompletionRequest, params: SamplingParams, model: str) -> None:
        self._context, self._body, self._params, self._model = context, body, params, model
        self._id, self._created = new_id("cmpl"), int(time.time())
        self._details = context.settings.enable_prompt_tokens_details
        self._silent = body.max_tokens == 0
        self._as_ids = bool(body.return_tokens_as_token_ids or context.settings.return_tokens_as_token_ids)
        self._offsets: dict[int, int] = {}  # characters of each choice's tokens that were given

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id, "object": "text_completion", "created": self._created, "model": self._model,
            "system_fingerprint": None,
        }  # fmt: skip

    def whole(self, prompts: list[Prompt], outputs: list[RequestOutput]) -> dict[str, Any]:
        found = self._head()
        found["choices"] = [
            self._choice(
                self._index(i, completion), self._shown(completion), output, self._echoed(prompt, output), 0, 0
            )
            for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
            for completion in output.outputs
        ]
        found["usage"] = self._usage(outputs)
        return found

    def _index(self, prompt: int, completion: CompletionOutput) -> int:
        return prompt * self._params.n + completion.index

    def _shown(self, completion: CompletionOutput) -> CompletionOutput:
        """With ``max_tokens`` 0 nothing of the output is."""
        if not self._silent:
            return completion
        logprobs = None if completion.logprobs is None else []
        return attrs.evolve(completion, text="", token_ids=[], logprobs=logprobs, finish_reason="length")

    def _echoed(self, prompt: Prompt, output: RequestOutput) -> str | None:
        if not self._body.echo:
            return None
        if prompt.text is not None and len(output.prompt_token_ids) == len(prompt.token_ids):
            return prompt.text
        decode = self._context.engine.get_tokenizer().decode
        return decode(output.prompt_token_ids, skip_special_tokens=self._params.skip_special_tokens)

    def _choice(
        self, index: int, completion: CompletionOutput, output: RequestOutput, echoed: str | None, since: int, at: int
    ) -> dict[str, Any]:
        """What an output has from token ``since`` and character ``at`` on; ``echoed``: the prompt before it."""
        found: dict[str, Any] = {
            "index": index,
            "text": (echoed or "") + completion.text[at:],
            "logprobs": None,
            "finish_reason": completion.finish_reason,
            "stop_reason": completion.stop_reason,
        }
        if self._body.logprobs is not None and completion.logprobs is not None:
            ids = completion.token_ids[since:]
            positions: list[Any] = completion.logprobs[since:]
            if echoed is not None:
                ids, positions = output.prompt_token_ids + ids, (output.prompt_logprobs or []) + positions
            found["logprobs"], self._offsets[index] = completion_logprobs(
                ids,
                positions,
                self._offsets.get(index, 0),
                self._context.engine.get_tokenizer().decode,
                self._as_ids,
            )
        if self._body.prompt_logprobs is not None:
            found["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        if self._body.return_token_ids:
            found["token_ids"] = completion.token_ids[since:]
            if since == 0:
                found["prompt_token_ids"] = output.prompt_token_ids
        return found

    def _usage(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        found = usage_of(outputs, self._details)
        if self._silent:
            details = found.get("prompt_tokens_details", {}).get("cached_tokens")
            found = usage(found["prompt_tokens"], 0, details)
        return found

    async def chunks(
        self, prompts: list[Prompt], running: AsyncIterator[tuple[int, RequestOutput]]
    ) -> AsyncIterator[bytes]:
        """The events of a stream."""
        options = self._body.stream_options
        counted = usage_wanted(self._context, options)
        continuous = counted and options is not None and bool(options.continuous_usage_stats)
        head = self._head()
        if counted:
            head["usage"] = None
        sent: dict[int, tuple[int, int]] = {}  # tokens and characters of each choice
        over: set[int] = set()
        last: dict[int, RequestOutput] = {}
        async with aclosing(running) as outputs:  # type: ignore[type-var]
            async for i, output in outputs:
                last[i] = output
                pieces = []
                for completion in map(self._shown, output.outputs):
                    index = self._index(i, completion)
                    if index in over:
                        continue
                    echoed = None
                    if index not in sent and self._body.echo:
                        echoed = self._echoed(prompts[i], output)
                    tokens, characters = sent.get(index, (0, 0))
                    news = len(completion.text) > characters
                    news |= self._wants_tokens and len(completion.token_ids) > tokens
                    if not (echoed or completion.finished or news):
                        continue
                    pieces.append(self._choice(index, completion, output, echoed, tokens, characters))
                    sent[index] = len(completion.token_ids), len(completion.text)
                    if completion.finished:
                        over.add(index)
                if pieces:
                    use = {"usage": self._usage([output])} if continuous else {}
                    yield b"".join([event({**head, **use, "choices": [piece]}) for piece in pieces])
        if counted:
            yield event({**head, "choices": [], "usage": self._usage(list(last.values()))})
        yield DONE

    @property
    def _wants_tokens(self) -> bool:
        """Whether a token without text is told."""
        return self._body.logprobs is not None or bool(self._body.return_token_ids)
