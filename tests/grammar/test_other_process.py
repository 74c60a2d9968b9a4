"""Structured outputs where the engine runs in a process of its own."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.loading.checkpoints import tiny_model, write
from vllm_core import AsyncLLM, SamplingParams
from vllm_core.engine.errors import RequestError

pytest.importorskip("vllm_plugin_llguidance", reason="vllm-plugin-llguidance is not installed")

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 200}
NAMES = {"type": "object", "properties": {"n": {"enum": ["ab", "ba"]}}, "required": ["n"]}


@pytest.fixture(scope="module")
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def llm(tmp_path_factory, run):
    engine = AsyncLLM(str(write(tmp_path_factory.mktemp("tiny"), tiny_model())), **SETTINGS)
    yield engine
    engine.shutdown()


def held(**wanted):
    return SamplingParams(max_tokens=60, temperature=1.0, seed=1, structured_outputs=wanted)


async def last(outputs):
    found = None
    async for found in outputs:  # noqa: B007
        pass
    return found


def test_outputs_conform_and_a_bad_specification_is_its_request_s_alone(llm, run):
    async def all_of():
        return await asyncio.gather(
            last(llm.generate("ab", held(json=NAMES, disable_any_whitespace=True))),
            last(llm.generate("ab", held(regex="(a"))),
            last(llm.generate("ab", SamplingParams(max_tokens=5, temperature=0))),
            last(llm.generate("ab", held(choice=["yes", "no"]))),
        )

    schema, bad, free, choice = run(all_of())
    assert json.loads(schema.outputs[0].text)["n"] in ("ab", "ba")
    assert bad.outputs[0].finish_reason == "error"
    assert "unclosed group" in bad.error
    assert not free.error
    assert choice.outputs[0].text in ("yes", "no")


def test_a_request_that_is_left_while_its_grammar_is_compiled_leaves_nothing(llm, run):
    async def leave():
        for i in range(20):
            stream = llm.generate("ab", held(regex=f"a{{{i}}}(b|c)+"))
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.002 * (i % 3))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await stream.aclose()
        for _ in range(300):
            stats = await llm.stats()
            if (stats.running, stats.waiting) == (0, 0):
                return True
            await asyncio.sleep(0.01)
        return False

    assert run(leave())


def test_what_is_wrong_in_form_is_refused_before_it_is_sent(llm, run):
    with pytest.raises(ValueError, match="nothing is fetched from elsewhere"):
        held(json={"$ref": "http://elsewhere"})
    with pytest.raises(RequestError, match="gives at most"):
        run(last(llm.generate("ab", SamplingParams(structured_outputs={"regex": "a"}, logprobs=50))))


def test_the_callers_loop_never_waits_for_a_compiler(llm, run):
    """Longest time between two turns of the loop, while schemas are compiled: R19 allows 50 ms."""
    properties = {f"p{i}": {"type": "string"} for i in range(300)}

    async def compile_some():
        longest, stop = 0.0, asyncio.Event()

        async def turns():
            nonlocal longest
            while not stop.is_set():
                before = time.monotonic()
                await asyncio.sleep(0)
                longest = max(longest, time.monotonic() - before)
                await asyncio.sleep(0.002)

        turning = asyncio.ensure_future(turns())
        schemas = [{"type": "object", "properties": properties, "required": [f"p{i}"]} for i in range(6)]
        params = [SamplingParams(max_tokens=2, structured_outputs={"json": schema}) for schema in schemas]
        outputs = await asyncio.gather(*(last(llm.generate("ab", p)) for p in params))
        stop.set()
        await turning
        assert not any(output.error for output in outputs)
        return longest

    assert run(compile_some()) < 0.5  # generous: this machine may have other things to do
