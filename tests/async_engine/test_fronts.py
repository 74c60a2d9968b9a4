"""Several fronts, in one process or in more, share an engine and do not get into each other's way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import attrs
import pytest

from tests.async_engine.helpers import LONG, ROOT, alive, first, greedy, idle, last, until
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.errors import EngineDeadError, RequestError
from vllm_core.plugins.errors import LockMismatch

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model(max_position_embeddings=4096)))


@pytest.fixture(scope="module")
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def owner(folder, run):
    engine = AsyncLLM(folder, **SETTINGS)
    yield engine
    engine.shutdown()


@pytest.fixture
def other(owner):
    front = AsyncLLM.connect(owner.address, owner.settings)
    yield front
    front.shutdown()


def test_requests_of_the_same_names_from_two_fronts_are_each_answered(owner, other, run, folder):
    prompts = [f"Sentence {i}" for i in range(6)]
    with LLM(folder, **SETTINGS) as local:
        expected = local.generate(prompts, greedy(20), use_tqdm=False)

    async def ask(front):
        return await asyncio.gather(*[last(front.generate(p, greedy(20), p)) for p in prompts])

    async def both():
        return await asyncio.gather(ask(owner), ask(other))

    for found in run(both()):
        assert [o.outputs[0].text for o in found] == [o.outputs[0].text for o in expected]
        assert [o.request_id for o in found] == prompts


def test_samples_of_one_prompt_stay_together_in_another_front(other, run):
    params = attrs.evolve(greedy(10), n=3, temperature=0.9, seed=4)
    output = run(last(other.generate("Once", params, "mine")))
    assert [len(sample.token_ids) for sample in output.outputs] == [10, 10, 10]


def test_an_abort_reaches_the_requests_of_its_own_front_only(owner, other, run):
    async def ask():
        mine = asyncio.create_task(last(owner.generate("Once", greedy(300), "same")))
        its = asyncio.create_task(last(other.generate("Once", LONG, "same")))
        await asyncio.sleep(0.1)
        await other.abort("same")
        return await mine, await its

    mine, its = run(ask())
    assert mine.outputs[0].finish_reason == "length"
    assert its.outputs[0].finish_reason == "abort"


def test_a_name_twice_in_one_front_is_refused_as_ever(other, run):
    async def ask():
        running = asyncio.create_task(last(other.generate("Once", greedy(100), "same")))
        await asyncio.sleep(0.02)
        with pytest.raises(RequestError, match="running already"):
            await last(other.generate("Twice", greedy(5), "same"))
        await running

    run(ask())


def test_a_front_that_leaves_takes_its_requests_along_and_nobody_elses(owner, run):
    leaving = AsyncLLM.connect(owner.address, owner.settings)

    async def ask():
        mine = asyncio.create_task(last(owner.generate("Once", greedy(200))))
        its = leaving.generate("Once", LONG)
        await first(its)
        leaving.shutdown()
        with pytest.raises(EngineDeadError, match="shut down"):
            await last(its)
        output = await mine
        return output, await idle(owner)

    output, back = run(ask())
    assert len(output.outputs[0].token_ids) == 200
    assert back


def test_another_front_knows_what_the_owner_chose(owner, other):
    def chosen(front):
        """Without parsers that no chat has needed yet."""
        choices = [choice for choice in front.explain()["choices"] if not choice["hook"].endswith("_parser")]
        return json.loads(json.dumps(choices))  # tuples are lists on the way

    assert chosen(other) == chosen(owner)
    assert {choice["hook"] for choice in chosen(other)} > {"model", "tokenizer", "grammar_backend"}
    assert other.lock.digest == owner.lock.digest
    assert other.generation_config == owner.generation_config
    assert other.text.eos_token_ids == owner.text.eos_token_ids


WITHOUT_TORCH = """
import asyncio, json, sys
from vllm_core import AsyncLLM, SamplingParams
from vllm_core.config.engine import EngineSettings

told = json.loads(sys.argv[1])
front = AsyncLLM.connect(told["address"], EngineSettings(**told["settings"]))

async def ask():
    return [o.outputs[0].text async for o in front.generate("Once", SamplingParams(max_tokens=5), stream=False)]

print(len(asyncio.run(ask())), "torch" in sys.modules)
front.shutdown()
"""


def test_another_front_imports_no_torch(owner):
    told = json.dumps({"address": owner.address, "settings": attrs.asdict(owner.settings)})
    command = [sys.executable, "-c", WITHOUT_TORCH, told]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_a_front_with_other_packages_than_the_engine_s_is_refused(owner, monkeypatch):
    monkeypatch.setattr("vllm_core.plugins.lock.__version__", "9.9")
    with pytest.raises(LockMismatch, match=r"vllm-core was \S+ when the lock was made, here it is 9\.9"):
        AsyncLLM.connect(owner.address, owner.settings)


def test_another_lock_is_refused(owner):
    settings = attrs.evolve(owner.settings, seed=1)
    with pytest.raises(EngineDeadError, match="LockMismatch: this process made other choices than the engine's"):
        AsyncLLM.connect(owner.address, settings)


@pytest.mark.parametrize("address", ["ipc:///nowhere/engine", "tcp://127.0.0.1:9", "ipc:///tmp/engine"])
def test_what_is_no_address_of_an_engine_is_refused(owner, address):
    with pytest.raises((ValueError, EngineDeadError), match=r"no engine at|no address of an engine"):
        AsyncLLM.connect(address, owner.settings)


FRONT = """
import asyncio, json, sys
from vllm_core import AsyncLLM, SamplingParams
from vllm_core.config.engine import EngineSettings
llm = AsyncLLM.connect(sys.argv[1], EngineSettings(**json.loads(sys.argv[2])))
async def ask():
    stop = SamplingParams(temperature=0, max_tokens=3000, ignore_eos=True)
    streams = [llm.generate("Once", stop) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    print("running", flush=True)
    async for _ in streams[0]:
        pass
asyncio.run(ask())
"""


def front_process(owner, **more):
    settings = json.dumps(attrs.asdict(owner.settings))
    return subprocess.Popen(
        [sys.executable, "-c", FRONT, owner.address, settings], stdout=subprocess.PIPE, cwd=ROOT, text=True, **more
    )


def test_a_front_whose_process_is_killed_gives_everything_back(owner, run):
    process = front_process(owner)
    assert process.stdout.readline() == "running\n"

    async def ask():
        before = await owner.stats()
        process.kill()
        process.wait()
        return before.running, await idle(owner, 5)

    running, back = run(ask())
    process.stdout.close()
    assert running == 3
    assert back


def test_every_front_hears_of_every_step_and_request(owner, other, run):
    heard = {"owner": [], "other": []}

    async def ask():
        ends = [owner.on_stats(heard["owner"].append), other.on_stats(heard["other"].append)]
        await asyncio.gather(owner.stats(), other.stats())  # what was sent before has arrived
        await last(owner.generate("Once", greedy(7), "a"))
        await last(other.generate("Once", greedy(7), "b"))
        await until(lambda: all(sum(len(f.requests) for f in found) >= 2 for found in heard.values()))
        for end in ends:
            end()

    run(ask())
    of_owner, of_other = ([r for f in heard[who] for r in f.requests] for who in ("owner", "other"))
    assert of_owner == of_other
    assert [r.request_id.rpartition(":")[2] for r in of_owner] == ["a", "b"]


def test_when_the_owner_ends_the_engine_its_other_fronts_know(folder):
    owner = AsyncLLM(folder, **SETTINGS)
    other = AsyncLLM.connect(owner.address, EngineSettings(model=folder, **SETTINGS))

    async def ask():
        stream = other.generate("Once", LONG)
        await first(stream)
        pid = owner.pid
        await asyncio.to_thread(owner.shutdown)
        with pytest.raises(EngineDeadError, match="has ended"):
            await last(stream)
        assert await until(lambda: other.state == "dead", 5)
        with pytest.raises(EngineDeadError):
            await other.check_health()
        return pid

    pid = asyncio.run(ask())
    assert not alive(pid)
    other.shutdown()
