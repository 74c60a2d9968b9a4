"""An engine whose process ends is started again, some times; what ran gets an error, or goes on where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import attrs
import pytest

from tests.async_engine.helpers import LONG, ROOT, alive, ended, first, greedy, idle, last, until
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.engine.errors import EngineDeadError, EngineRestartingError

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


def kill(llm):
    os.kill(llm.pid, signal.SIGKILL)


def test_a_killed_engine_is_started_again_in_every_front(folder):
    owner = AsyncLLM(folder, **SETTINGS, restarts=3)
    other = AsyncLLM.connect(owner.address, owner.settings)

    async def ask():
        streams = [owner.generate("Once", LONG), other.generate("Once", LONG)]
        for stream in streams:
            await first(stream)
        expected = (await last(owner.generate("Again", greedy(9)))).outputs[0].text
        states = asyncio.create_task(owner.state_change())
        kill(owner)
        killed, pid = time.monotonic(), owner.pid
        errors = await asyncio.gather(*map(last, streams), return_exceptions=True)
        seconds = time.monotonic() - killed
        assert await states == owner.state == other.state == "restarting"
        for front in (owner, other):
            with pytest.raises(EngineRestartingError, match="was killed by signal 9; it is started again") as caught:
                await last(front.generate("Now", greedy(2)))
            assert caught.value.retry_after >= 1
            with pytest.raises(EngineRestartingError):
                await front.check_health()
        assert await until(lambda: owner.state == other.state == "ready", 60)
        assert owner.pid == other.pid != pid
        texts = [(await last(front.generate("Again", greedy(9)))).outputs[0].text for front in (owner, other)]
        for front in (owner, other):
            await front.check_health()
        return errors, seconds, texts == [expected] * 2, await idle(owner)

    errors, seconds, same, back = asyncio.run(ask())
    assert {type(error) for error in errors} == {EngineDeadError}
    assert all("was killed by signal 9" in str(error) for error in errors)
    assert seconds < 2
    assert same
    assert back
    home = owner.address.removeprefix("ipc://").rpartition("/")[0]
    other.shutdown()
    owner.shutdown()
    assert not os.path.exists(home)


def test_after_too_many_ends_it_is_over_with_the_last_cause(folder):
    llm = AsyncLLM(folder, **SETTINGS, restarts=1)

    async def ask():
        await llm.check_health()
        for _ in range(2):
            kill(llm)
            await llm.state_change()
            await until(lambda: llm.state in ("ready", "dead"), 60)
        assert llm.state == "dead"
        with pytest.raises(EngineDeadError, match=r"killed by signal 9 \(it was started again 1 times within 600 s\)"):
            await llm.check_health()
        assert str(llm.dead).startswith("the engine process (pid ")

    asyncio.run(ask())
    llm.shutdown()


def test_a_start_that_fails_counts_as_an_end(folder, tmp_path):
    gone = write(tmp_path / "gone", tiny_model())
    llm = AsyncLLM(str(gone), **SETTINGS, restarts=2)

    async def ask():
        await llm.check_health()
        (gone / "model.safetensors").rename(tmp_path / "elsewhere")
        kill(llm)
        assert await until(lambda: llm.state == "dead", 90)
        return str(llm.dead)

    assert asyncio.run(ask()).startswith("the engine could not be started again: ")
    llm.shutdown()


def test_streams_go_on_in_the_next_engine_without_a_lost_or_doubled_token(folder):
    prompts = [f"Number {i}, and then" for i in range(5)]
    greedily = attrs.evolve(greedy(400), logprobs=1)
    drawn = SamplingParams(temperature=0.9, seed=3, max_tokens=400, ignore_eos=True, presence_penalty=0.5, n=2)
    params = [greedily, greedily, drawn, attrs.evolve(greedy(400), min_tokens=300), greedy(400)]
    with LLM(folder, **SETTINGS) as local:
        expected = local.generate(prompts, params, use_tqdm=False)
    llm = AsyncLLM(folder, **SETTINGS, restarts=3, carry_over=True)

    async def ask():
        streams = [llm.generate(p, q) for p, q in zip(prompts, params, strict=True)]
        for stream in streams:
            await first(stream)
        await asyncio.sleep(0.1)
        kill(llm)
        return await asyncio.gather(*map(last, streams)), await idle(llm)

    outputs, back = asyncio.run(ask())
    for got, want in zip(outputs, expected, strict=True):
        assert [s.token_ids for s in got.outputs] == [s.token_ids for s in want.outputs]
        assert [s.text for s in got.outputs] == [s.text for s in want.outputs]
        assert [s.finish_reason for s in got.outputs] == ["length"] * len(want.outputs)
        for mine, its in zip(got.outputs, want.outputs, strict=True):
            assert len(mine.logprobs or ()) == len(its.logprobs or ())
    assert back
    llm.shutdown()


def test_requests_of_a_step_that_failed_are_not_carried_over(folder):
    llm = AsyncLLM(folder, **SETTINGS, restarts=3, carry_over=True)
    llm._desk._intake.vocab_size = 10**9  # the only way past the checks of the intake

    async def ask():
        neighbour = llm.generate("Once", LONG)
        await first(neighbour)
        errors = await asyncio.gather(last(neighbour), last(llm.generate([10**8], LONG)), return_exceptions=True)
        assert await until(lambda: llm.state == "ready", 60)
        return errors, await last(llm.generate("Once", greedy(5)))

    errors, after = asyncio.run(ask())
    assert {type(error) for error in errors} == {EngineDeadError}
    assert all("a step failed" in str(error) for error in errors)
    assert len(after.outputs[0].token_ids) == 5
    llm.shutdown()


def test_a_shutdown_during_a_restart_leaves_no_process(folder):
    llm = AsyncLLM(folder, **SETTINGS, restarts=3)

    async def ask():
        await llm.check_health()
        kill(llm)
        await llm.state_change()
        await asyncio.sleep(0.3)

    asyncio.run(ask())
    pid = llm._engine._held.process.pid
    llm.shutdown()
    assert not alive(pid)
    assert llm.state == "dead"


PARENT = """
import asyncio, sys
from vllm_core import AsyncLLM, SamplingParams
llm = AsyncLLM(sys.argv[1])
async def ask():
    print(llm.pid, flush=True)
    async for output in llm.generate("Once", SamplingParams(temperature=0, max_tokens=3000, ignore_eos=True)):
        pass
    print(len(output.outputs[0].token_ids), flush=True)
if len(sys.argv) > 2:
    import signal
    signal.signal(signal.SIGTERM, lambda *_: None)  # as a server that finishes what it has
asyncio.run(ask())
"""


def parent(folder, *more):
    command = [sys.executable, "-c", PARENT, folder, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True)


def test_a_stopped_engine_ends_with_its_killed_parent(folder):
    process = parent(folder)
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    process.stdout.close()
    assert ended(pid, 2)


def test_an_end_that_is_asked_of_the_whole_group_is_the_parents_to_decide(folder):
    process = parent(folder, "drains")
    pid = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stdout.readline() == "3000\n"
    assert process.wait(20) == 0
    process.stdout.close()
    assert ended(pid, 2)
