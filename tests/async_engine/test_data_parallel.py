"""Two engines behind one front: they answer as one would, and one that dies leaves the other to it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import attrs
import pytest

from tests.async_engine.helpers import LONG, ended, first, greedy, last, until
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.engine.errors import EngineDeadError, EngineRestartingError

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64}
PROMPTS = [f"Number {i}, and then" for i in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


@pytest.fixture(scope="module")
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def pair(folder, run):
    llm = AsyncLLM(folder, **SETTINGS, data_parallel_size=2)
    yield llm
    llm.shutdown()


@pytest.fixture
def mortal(folder):
    """For tests that kill: each has its own."""
    made = []

    def make(**options):
        made.append(AsyncLLM(folder, **SETTINGS, data_parallel_size=2, **options))
        return made[-1]

    yield make
    for llm in made:
        llm.shutdown()


def local(folder, prompts, params):
    with LLM(folder, **SETTINGS) as llm:
        return llm.generate(prompts, params, use_tqdm=False)


def tokens(outputs):
    return [[sample.token_ids for sample in output.outputs] for output in outputs]


def engines(outputs):
    return [output.metrics.engine for output in outputs]


def test_answers_are_those_of_one_engine_and_both_take_their_part(pair, run, folder):
    drawn = SamplingParams(temperature=0.9, seed=5, max_tokens=20, ignore_eos=True, n=3)
    params = [drawn if i % 2 else greedy(20) for i in range(10)]

    async def ask():
        return await asyncio.gather(*[last(pair.generate(p, q)) for p, q in zip(PROMPTS, params, strict=True)])

    outputs = run(ask())
    assert tokens(outputs) == tokens(local(folder, PROMPTS, params))
    assert 3 <= sum(engines(outputs)) <= 7
    assert pair.states == {0: "ready", 1: "ready"}
    assert len(set(pair.pids.values())) == 2


def test_equal_requests_are_spread_evenly(pair, run):
    async def ask():
        return await asyncio.gather(*[last(pair.generate("Once", greedy(30))) for _ in range(16)])

    assert sum(engines(run(ask()))) == 8


def test_without_seeds_what_is_drawn_does_not_depend_on_the_number_of_engines(folder, run, mortal):
    params = SamplingParams(temperature=1, max_tokens=12, ignore_eos=True)
    llm = mortal()

    async def ask():
        return [await last(llm.generate(prompt, params)) for prompt in PROMPTS[:4]]

    outputs = run(ask())
    assert engines(outputs) == [0, 1, 0, 1]
    assert tokens(outputs) == tokens(local(folder, PROMPTS[:4], params))


def test_each_engine_tells_how_it_is_and_all_together(pair, run):
    async def ask():
        streams = [pair.generate("Once", LONG) for _ in range(4)]
        for stream in streams:
            await first(stream)
        stats = await pair.stats()
        for stream in streams:
            await stream.aclose()
        return stats

    stats = run(ask())
    assert [(e.engine, e.state, e.running) for e in stats.engines] == [(0, "ready", 2), (1, "ready", 2)]
    assert stats.running == 4
    assert [e.pid for e in stats.engines] == list(pair.pids.values())


def test_an_abort_reaches_the_engine_that_has_the_request(pair, run):
    async def ask():
        names = [f"name {i}" for i in range(4)]
        tasks = [asyncio.create_task(last(pair.generate("Once", LONG, name))) for name in names]
        await until(lambda: pair.num_requests == 4)
        await asyncio.sleep(0.1)
        await pair.abort(names[:3])
        outputs = await asyncio.gather(*tasks[:3])
        held = (await pair.stats()).running
        await pair.abort(names[3])
        return [*outputs, await tasks[3]], held

    outputs, held = run(ask())
    assert [output.outputs[0].finish_reason for output in outputs] == ["abort"] * 4
    assert held == 1
    assert set(engines(outputs)) == {0, 1}


def test_figures_say_whose_they_are(pair, run):
    heard = []

    async def ask():
        end = pair.on_stats(heard.append)
        await asyncio.gather(*[last(pair.generate("Once", greedy(5))) for _ in range(4)])
        await until(lambda: sum(len(figures.requests) for figures in heard) == 4)
        end()

    run(ask())
    counted = {i: sum(len(figures.requests) for figures in heard if figures.engine == i) for i in (0, 1)}
    assert counted == {0: 2, 1: 2}


def test_prompts_that_begin_alike_are_found_in_the_cache_of_one_engine(folder, run, mortal):
    llm = mortal(data_parallel_routing="prefix")
    beginnings = [[3 + i] * 200 for i in range(2)]

    async def ask():
        found = []
        for turn in range(3):
            outputs = await asyncio.gather(*[last(llm.generate([*b, 50 + turn], greedy(3))) for b in beginnings])
            found.append((engines(outputs), [output.num_cached_tokens for output in outputs]))
        return found

    found = run(ask())
    assert {tuple(sorted(at)) for at, _ in found} == {(0, 1)}
    assert found[0][0] == found[1][0] == found[2][0]
    assert all(cached >= 190 for _, counts in found[1:] for cached in counts)


def test_several_fronts_are_each_connected_to_each_engine_and_see_the_others_load(pair, run, folder):
    other = AsyncLLM.connect(pair.address, pair.settings)

    async def ask():
        await other.check_health()
        busy = [pair.generate("Once", LONG, f"busy {i}") for i in range(6)]
        for stream in busy:
            await first(stream)
        of_zero = [n for n, w in pair._desk.waiters.items() if w.replica.number == 0]
        await pair.abort(of_zero)  # engine 1 has three, engine 0 none
        seen = await until(lambda: [r.load.others for r in other._fleet.replicas] == [0, 3])
        outputs = await asyncio.gather(*[last(other.generate(p, greedy(20), p)) for p in PROMPTS[:3]])
        for stream in busy:
            await stream.aclose()
        gone = await until(lambda: [r.load.others for r in other._fleet.replicas] == [0, 0])
        return seen, outputs, gone

    seen, outputs, gone = run(ask())
    other.shutdown()
    assert seen
    assert engines(outputs) == [0, 0, 0]
    assert tokens(outputs) == tokens(local(folder, PROMPTS[:3], greedy(20)))
    assert gone


def kill(llm, engine=0):
    os.kill(llm.pids[engine], signal.SIGKILL)


def test_a_killed_engines_streams_go_on_in_the_other_one_and_nobody_else_notices(folder, run, mortal):
    drawn = SamplingParams(temperature=0.9, seed=3, max_tokens=300, ignore_eos=True, n=2)
    params = [drawn if i == 3 else greedy(300) for i in range(8)]
    expected = local(folder, PROMPTS[:8], params)
    llm = mortal(restarts=3, carry_over=True)

    async def ask():
        streams = [llm.generate(p, q) for p, q in zip(PROMPTS, params, strict=False)]
        for stream in streams:
            await first(stream)
        kill(llm)
        tasks = [asyncio.create_task(last(stream)) for stream in streams]
        states = set()
        while not await until(lambda: "restarting" in llm.states.values(), 0):
            await llm.check_health()
            await asyncio.sleep(0.01)
        for _ in range(10):  # while one of them is away
            await llm.check_health()
            states.add(llm.state)
            assert (await last(llm.generate("Once", greedy(3)))).metrics.engine == 1
        stats = await llm.stats()
        outputs = await asyncio.gather(*tasks)
        back = await until(lambda: llm.states[0] == "ready", 60)
        after = await asyncio.gather(*[last(llm.generate(p, greedy(20))) for p in PROMPTS])
        return outputs, states, stats, back, after

    outputs, states, stats, back, after = run(ask())
    assert tokens(outputs) == tokens(expected)
    assert [s.text for o in outputs for s in o.outputs] == [s.text for o in expected for s in o.outputs]
    assert set(engines(outputs)) == {1}
    assert states == {"ready"}
    assert [e.state for e in stats.engines] == ["restarting", "ready"]
    assert "engine 0: the engine process" in stats.engines[0].cause
    assert back
    assert 3 <= sum(engines(after)) <= 7


def test_without_carry_over_what_ran_in_a_killed_engine_ends_with_its_cause_and_new_requests_do_not_fail(run, mortal):
    llm = mortal(restarts=3)

    async def ask():
        streams = [llm.generate("Once", LONG) for _ in range(4)]
        for stream in streams:
            await first(stream)
        kill(llm)
        new = [llm.generate(p, greedy(20)) for p in PROMPTS]  # before anybody knows of its end
        answers = asyncio.gather(*map(last, new))
        errors = await asyncio.gather(*map(last, streams), return_exceptions=True)
        return errors, await answers

    found, answers = run(ask())
    errors = [error for error in found if isinstance(error, BaseException)]
    assert {type(error) for error in errors} == {EngineDeadError}
    assert len(errors) == 2
    assert all(str(error).startswith("engine 0: the engine process (pid ") for error in errors)
    assert [len(found.outputs[0].token_ids) for found in answers] == [20] * 10


def test_requests_of_a_step_that_failed_are_not_taken_to_the_other_engine(run, mortal):
    llm = mortal(restarts=3, carry_over=True)
    llm._desk._intake.vocab_size = 10**9  # the only way past the checks of the intake

    async def ask():
        streams = [llm.generate("Once", greedy(200)) for _ in range(2)]
        for stream in streams:
            await first(stream)
        return await asyncio.gather(
            *map(last, streams), last(llm.generate([10**8], greedy(200))), return_exceptions=True
        )

    *neighbours, bad = run(ask())
    assert isinstance(bad, EngineDeadError)
    assert "a step failed" in str(bad)
    assert [isinstance(found, EngineDeadError) for found in neighbours].count(True) == 1
    assert llm.states[1] == "ready"


def test_it_is_over_when_the_last_engine_is(run, mortal):
    llm = mortal()

    async def ask():
        await llm.check_health()
        kill(llm, 0)
        await until(lambda: llm.states[0] == "dead")
        assert llm.state == "ready"
        assert llm.dead is None
        await llm.check_health()
        output = await last(llm.generate("Once", greedy(5)))
        kill(llm, 1)
        await until(lambda: llm.state == "dead")
        with pytest.raises(EngineDeadError, match="engine 1: the engine process"):
            await llm.check_health()
        return output

    assert run(ask()).metrics.engine == 1
    assert "killed by signal 9" in str(llm.dead)


def test_while_both_are_away_requests_are_told_when_to_come_back(run, mortal):
    llm = mortal(restarts=3)

    async def ask():
        await llm.check_health()
        kill(llm, 0)
        kill(llm, 1)
        await until(lambda: llm.state == "restarting")
        with pytest.raises(EngineRestartingError, match=r"engine [01]: .* is started again") as caught:
            await last(llm.generate("Once", greedy(5)))
        assert caught.value.retry_after >= 1
        assert await until(lambda: llm.state == "ready", 60)
        return await last(llm.generate("Once", greedy(5)))

    assert len(run(ask()).outputs[0].token_ids) == 5


def test_a_shutdown_ends_all_engines_and_leaves_no_folder(folder):
    llm = AsyncLLM(folder, **SETTINGS, data_parallel_size=2)
    pids = llm.pids.values()
    homes = [Path(part.partition("ipc://")[2]).parent for part in llm.address.split(",")]
    assert len(homes) == 2
    assert all(home.exists() for home in homes)
    llm.shutdown()
    assert all(ended(pid, 5) for pid in pids)
    assert not any(home.exists() for home in homes)


def test_an_engine_that_cannot_start_ends_the_others(folder, tmp_path):
    gone = write(tmp_path / "gone", tiny_model())
    (gone / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(Exception, match=r"model\.safetensors"):
        AsyncLLM(str(gone), **SETTINGS, data_parallel_size=2)


def test_one_engine_of_several_behind_anothers_balancer_has_its_number(folder, run):
    llm = AsyncLLM(folder, **SETTINGS, data_parallel_size=4, data_parallel_rank=2)
    output = run(last(llm.generate("Once", greedy(3))))
    assert llm.states == {2: "ready"}
    assert output.metrics.engine == 2
    other = AsyncLLM.connect(llm.address, attrs.evolve(llm.settings))
    assert other.states == {2: "ready"}
    other.shutdown()
    llm.shutdown()
