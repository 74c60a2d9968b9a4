"""Prompts on their way through the engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.generation import generate_all

from vllm_core.serving import CompletionOutput, Prompt, RequestOutput, SamplingParams


class Engine:
    """Makes outputs as fast as they are taken; ``running``: generators that have not ended."""

    def __init__(self, count: int) -> None:
        self.made, self.running, self._count = 0, 0, count

    async def generate(self, prompt, params, request_id, *, priority, stream):
        self.running += 1
        try:
            for i in range(self._count):
                self.made += 1
                yield output(request_id, i + 1, finished=i + 1 == self._count)
                await asyncio.sleep(0)
        finally:
            self.running -= 1


def output(request_id: str, tokens: int, finished: bool) -> RequestOutput:
    completion = CompletionOutput(index=0, text="x" * tokens, token_ids=[1] * tokens)
    completion.finish_reason = "length" if finished else None
    return RequestOutput(
        request_id=request_id, prompt="a", prompt_token_ids=[1], outputs=[completion], finished=finished, metrics=None
    )


@pytest.fixture
def engine():
    return Engine(500)


def run_with(engine, count: int = 3):
    context = SimpleNamespace(engine=engine, models={"m": "base"}, observers=[], admission=Admission(100))
    state = SimpleNamespace(request_id="req-1", route="/v1/completions")
    request = SimpleNamespace(state=state, headers={})
    prompts = [Prompt(text="a", token_ids=[1]) for _ in range(count)]
    return context, generate_all(context, request, prompts, SamplingParams(), stream=True)


async def rest() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def test_outputs_of_several_prompts_do_not_pile_up_for_a_slow_client(engine):
    async def go() -> None:
        context, outputs = run_with(engine)
        await anext(outputs)
        await rest()  # the client does not read
        assert engine.made <= 3 * 3  # for each prompt: one that waits, its share of the queue, and the first
        last = {index: found async for index, found in outputs}
        assert all(last[i].finished for i in range(3))
        assert context.admission.held == engine.running == 0

    asyncio.run(go())


def test_leaving_ends_the_work_of_all_prompts(engine):
    async def go() -> None:
        context, outputs = run_with(engine)
        await anext(outputs)
        await rest()
        assert engine.running == 3
        await outputs.aclose()
        assert context.admission.held == engine.running == 0

    asyncio.run(go())
