"""The engine in a process of its own answers as the one in this process does."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.engine.errors import RequestError

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 200}
LONG = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model()))


@pytest.fixture(scope="module")
def run():
    """Run a coroutine in the module's event loop: an AsyncLLM belongs to one."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def llm(folder, run):
    engine = AsyncLLM(folder, **SETTINGS)
    yield engine
    engine.shutdown()


async def last(outputs):
    found = None
    async for found in outputs:  # noqa: B007
        pass
    return found


async def idle(llm):
    """Wait until nothing runs, waits or holds pages that nobody can take."""
    for _ in range(200):
        stats = await llm.stats()
        if (stats.running, stats.waiting, stats.cache_usage) == (0, 0, 0):
            return True
        await asyncio.sleep(0.01)
    return False


def test_many_requests_at_once_get_the_tokens_and_texts_that_llm_gives(llm, run, folder):
    prompts = [f"Sentence number {i}, and then " * (1 + i % 5) for i in range(24)]
    params = [
        SamplingParams(
            temperature=0.8 * (i % 2), seed=i, max_tokens=5 + i, logprobs=i % 3, prompt_logprobs=[None, 1][i % 2]
        )
        for i in range(24)
    ]
    with LLM(folder, **SETTINGS) as local:
        expected = local.generate(prompts, params, use_tqdm=False)

    async def ask():
        return await asyncio.gather(*[last(llm.generate(p, q)) for p, q in zip(prompts, params, strict=True)])

    for got, want in zip(run(ask()), expected, strict=True):
        (ours,), (theirs,) = got.outputs, want.outputs
        assert (ours.text, ours.token_ids, ours.finish_reason) == (theirs.text, theirs.token_ids, theirs.finish_reason)
        assert ours.cumulative_logprob == pytest.approx(theirs.cumulative_logprob, abs=1e-3)
        assert [len(position) for position in ours.logprobs] == [len(position) for position in theirs.logprobs]
        assert got.prompt_token_ids == want.prompt_token_ids
        assert (got.prompt_logprobs is None) == (want.prompt_logprobs is None)


def test_outputs_grow_and_the_last_is_the_whole(llm, run):
    async def ask():
        return [output async for output in llm.generate("Once", LONG)]

    outputs = run(ask())
    texts = [output.outputs[0].text for output in outputs]
    assert len(outputs) > 3
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert texts[-1] == run(last(llm.generate("Once", LONG, stream=False))).outputs[0].text


def test_without_stream_there_is_one_output(llm, run):
    async def ask():
        return [output async for output in llm.generate("Once", LONG, stream=False)]

    (output,) = run(ask())
    assert output.finished
    assert len(output.outputs[0].token_ids) == 150


def test_a_slow_reader_gets_the_newest_and_holds_up_nobody(llm, run):
    async def slowly():
        count = 0
        async for output in llm.generate("Once", LONG):  # noqa: B007
            count += 1
            if count == 1:
                await last(llm.generate("Another", LONG))
        return count, output

    count, output = run(slowly())
    assert count < 100
    assert len(output.outputs[0].token_ids) == 150


@pytest.mark.parametrize("way", ["break", "cancel", "abort", "stop string"])
def test_whoever_leaves_gives_everything_back(llm, run, way):
    async def leave():
        stopping = SamplingParams(temperature=0, max_tokens=150, ignore_eos=True, stop=["e"])
        outputs = llm.generate("Once", stopping if way == "stop string" else LONG, request_id="mine")
        if way == "break":
            async for _ in outputs:
                break
            await outputs.aclose()
        elif way == "cancel":
            task = asyncio.create_task(last(outputs))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif way == "abort":
            async for output in outputs:  # noqa: B007
                await llm.abort("mine")
            assert output.outputs[0].finish_reason == "abort"
        else:
            output = await last(outputs)
            assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", "e")
        assert llm.num_requests == 0
        return await idle(llm)

    assert run(leave())


def test_a_chat_is_answered(llm, run):
    output = run(last(llm.chat([{"role": "user", "content": "Hi"}], SamplingParams(temperature=0, max_tokens=5))))
    assert "Hi" in output.prompt
    assert len(output.outputs[0].token_ids) <= 5


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        ([1, 2, 10**6], "not in the vocabulary"),
        ([5] * 500, "must fit into 200"),
        ({"promt": "x"}, "did you mean 'prompt'"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_served_fails_alone(llm, run, prompt, message):
    async def ask():
        good = asyncio.create_task(last(llm.generate("Once", LONG)))
        with pytest.raises(RequestError, match=message):
            await last(llm.generate(prompt, LONG))
        return await good

    assert len(run(ask()).outputs[0].token_ids) == 150


def test_a_priority_that_nobody_heeds_is_refused(llm):
    with pytest.raises(ValueError, match="no effect with scheduling_policy"):
        llm.generate("Once", LONG, priority=1)


def test_two_requests_may_not_have_one_id(llm, run):
    async def ask():
        first = asyncio.create_task(last(llm.generate("Once", LONG, request_id="same")))
        await asyncio.sleep(0.02)
        with pytest.raises(RequestError, match="running already"):
            await last(llm.generate("Twice", LONG, request_id="same"))
        return await first

    assert len(run(ask()).outputs[0].token_ids) == 150


def test_prefixes_are_found_until_they_are_forgotten(llm, run):
    prompt = {"prompt_token_ids": list(range(3, 90))}

    async def ask():
        few = SamplingParams(max_tokens=1)
        found = [(await last(llm.generate(prompt, few))).num_cached_tokens for _ in range(2)]
        await llm.reset_prefix_cache()
        return [*found, (await last(llm.generate(prompt, few))).num_cached_tokens]

    first, second, third = run(ask())
    assert (first, third) == (0, 0)
    assert second >= 64


def test_an_engine_without_requests_sleeps(llm, run):
    def processor_seconds():
        fields = Path(f"/proc/{llm._engine.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    run(last(llm.generate("Once", LONG)))
    before = processor_seconds()
    time.sleep(1)
    assert processor_seconds() - before <= 0.02


def test_samples_of_one_prompt_come_together_and_leaving_ends_them_all(llm, run, folder):
    params = SamplingParams(n=3, seed=5, max_tokens=20, ignore_eos=True)

    async def ask():
        outputs = [output async for output in llm.generate("Once upon", params)]
        async for _ in llm.generate("Once upon", SamplingParams(n=3, max_tokens=150, ignore_eos=True)):
            break
        return outputs, await idle(llm)

    outputs, ended = run(ask())
    with LLM(folder, **SETTINGS) as local:
        (expected,) = local.generate("Once upon", params, use_tqdm=False)
    assert [sample.text for sample in outputs[-1].outputs] == [sample.text for sample in expected.outputs]
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert ended
