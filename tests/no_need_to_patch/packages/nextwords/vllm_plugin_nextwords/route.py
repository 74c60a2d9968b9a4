"""Requests {"prompt": text, "top": how many} -> {"next": [{"token", "probability"}, ...]}, the likeliest first."""

import math
from typing import Annotated

import msgspec
from vllm_plugin_server.api import (
    SamplingParams,
    bad_request,
    bound,
    check_length,
    describe,
    generate_all,
    json_answer,
    model_of,
    read_body,
)


class NextRequest(msgspec.Struct, kw_only=True):
    prompt: str
    top: Annotated[int, msgspec.Meta(ge=1)] = 1
    model: Annotated[str, bound("name")] | None = None


class NextToken(msgspec.Struct):
    token: str
    probability: float


class NextAnswer(msgspec.Struct):
    next: list[NextToken]


def make(context):
    most = context.plugins["nextwords"].most

    @describe(body=NextRequest, answer=NextAnswer, queued=True)
    async def next_tokens(request):
        body = await read_body(request, NextRequest, context)
        model_of(context, body.model)
        if body.top > most:
            raise bad_request(f"top is {body.top}, and this server tells {most} tokens at most", "top")
        params = SamplingParams(max_tokens=1, temperature=0, logprobs=body.top)
        prompt = await context.work(context.engine.read_prompt, body.prompt, size=len(body.prompt))
        check_length(context, len(prompt.token_ids), params, "prompt")
        async for _, output in generate_all(context, request, [prompt], params, stream=False):
            found = sorted(output.outputs[0].logprobs[0].values(), key=lambda one: one.rank)[: body.top]
        return json_answer(NextAnswer([NextToken(one.decoded_token, math.exp(one.logprob)) for one in found]))

    return next_tokens
