"""Ranks on a Ray cluster give what one rank gives, and a rank that ends is named."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ExecutorQuery
from vllm_core.testing.reference import Reference

ray = pytest.importorskip("ray")
transformers = pytest.importorskip("transformers")
sys.path.append(str(Path(__file__).parent))
from processes import below, comes_true  # noqa: E402

pytestmark = pytest.mark.slow

SETTINGS = {
    "dtype": "float32",
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "max_model_len": 250,
    "skip_tokenizer_init": True,
}
PROMPTS = [[5, 60, 70, 20, 99], list(range(3, 90)), [7]]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2),
    SamplingParams(temperature=0.9, top_p=0.9, seed=5, max_tokens=30, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=12, ignore_eos=True),
]
LONG = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
CONFIG = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    Reference(transformers.LlamaForCausalLM, CONFIG).save(path)
    return str(path)


@pytest.fixture(scope="module")
def cluster():
    """One for all tests of this file: its start takes seconds."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(folder):
    with LLM(folder, **SETTINGS) as llm:
        return answers(llm)


def answers(llm):
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS, use_tqdm=False)]


def on_ray(folder, ranks=2, **more):
    return LLM(folder, tensor_parallel_size=ranks, distributed_executor_backend="ray", **SETTINGS, **more)


def test_an_engine_on_ray_comes_back_after_a_rank_was_killed(folder, alone, cluster, monkeypatch):
    """Two engines, one after the other, each in a process of its own that joins the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)

    async def run():
        engine = AsyncLLM(folder, tensor_parallel_size=2, distributed_executor_backend="ray", restarts=1, **SETTINGS)
        try:

            async def answer():
                outputs = [output async for output in engine.generate(PROMPTS[0], PARAMS[0], stream=False)]
                return outputs[-1].outputs[0].token_ids

            assert await answer() == alone[0]
            killed, first = ranks_below(), engine.pid
            assert len(killed) == 2
            os.kill(min(killed), signal.SIGKILL)
            async with asyncio.timeout(60):
                while engine.state != "ready" or engine.pid == first:
                    assert engine.dead is None
                    await asyncio.wait({asyncio.create_task(engine.state_change())}, timeout=1)
            assert await answer() == alone[0]
            assert comes_true(lambda: not ranks_below() & killed, 15)
            return ranks_below()
        finally:
            engine.shutdown()

    last = asyncio.run(run())
    assert len(last) == 2
    assert comes_true(lambda: not ranks_below(), 15)


def test_a_cluster_that_was_started_for_an_engine_ends_with_it_though_it_is_killed(folder, tmp_path, cluster):
    settings = {**SETTINGS, "plugin": {"ray": {"address": "local"}}}
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom vllm_core import LLM\n"
        f"llm = LLM({folder!r}, distributed_executor_backend='ray', **{settings!r})\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while (line := process.stdout.readline()) and line != "ready\n":
        pass
    assert line == "ready\n"
    started = {pid: line for pid, line in below(process.pid).items() if re.search("RankActor|raylet |gcs_server", line)}
    assert len(started) >= 3  # Ray's own agents may take their time
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert not {pid: line for pid, line in started.items() if not ended(pid)}


def test_ranks_on_two_nodes_meet_at_the_address_of_one(folder, alone, tmp_path):
    """Two nodes of Ray on this host, each with an address of its own, in a process that this test ends."""
    program = tmp_path / "program.py"
    program.write_text(TWO_NODES.format(folder=folder, settings=SETTINGS, prompt=PROMPTS[0]))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    addresses, meeting, ids = json.loads(done.stdout.strip().splitlines()[-1])
    assert "127.0.0.2" in addresses
    assert addresses[0] != addresses[1]
    assert meeting.startswith(f"tcp://{addresses[0]}:")
    assert ids == alone[0][:10]


TWO_NODES = """
import json
import ray
from ray.cluster_utils import Cluster
from vllm_core import AsyncLLM, LLM, SamplingParams
from vllm_plugin_ray import placing, ranks

node = {{"num_cpus": 1, "object_store_memory": 80 << 20}}
cluster = Cluster(initialize_head=True, head_node_args={{"include_dashboard": False, **node}})
cluster.add_node(node_ip_address="127.0.0.2", **node)
ray.init(address=cluster.address, log_to_driver=False)
told = []

def starts(build, placed):
    found = placing.starts(build, placed)
    told.extend([[one.address for one in placed], found[0].meeting])
    return found

ranks.starts = starts
spread = {{"ray": {{"placement": "STRICT_SPREAD"}}}}
llm = LLM({folder!r}, tensor_parallel_size=2, distributed_executor_backend="ray", plugin=spread, **{settings!r})
params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
ids = llm.generate([{prompt!r}], params, use_tqdm=False)[0].outputs[0].token_ids
llm.shutdown()
ray.shutdown()
cluster.shutdown()
print(json.dumps([*told, list(ids)]))
"""


def ranks_below():
    return {pid for pid, line in below().items() if line.startswith("ray::RankActor")}


def ended(pid, seconds=15.0):
    """A zombie has ended, too."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_two_ranks_on_ray_give_what_one_gives_and_leave_nothing(folder, alone, cluster):
    with on_ray(folder) as llm:
        assert answers(llm) == alone
        pids = [place.pid for place in llm.built.executor._places.values()]
        assert len(set(pids)) == 2
        assert os.getpid() not in pids
    assert all(ended(pid) for pid in pids)
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2


def test_two_stages_on_ray_give_what_one_rank_gives(folder, alone, cluster):
    with LLM(folder, pipeline_parallel_size=2, distributed_executor_backend="ray", **SETTINGS) as llm:
        assert answers(llm) == alone
    assert comes_true(lambda: not ranks_below(), 15)


def test_one_rank_on_ray_goes_ahead_as_it_does_here(folder, alone, cluster):
    with on_ray(folder, ranks=1, async_scheduling=True) as llm:
        assert answers(llm) == alone


def test_a_rank_that_is_killed_is_named_even_while_nothing_runs(folder, cluster):
    with on_ray(folder) as llm:
        told = []
        llm.built.executor.on_end = told.append
        llm.generate([PROMPTS[0]], PARAMS[2:], use_tqdm=False)
        pids = {rank: place.pid for rank, place in llm.built.executor._places.items()}
        os.kill(pids[1], signal.SIGKILL)
        deadline = time.monotonic() + 15
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told[0].startswith("rank 1 (tp 1) on ")
        assert f"cpu (pid {pids[1]}) has ended" in told[0]
        with pytest.raises(RuntimeError, match=r"rank 1 \(tp 1\) on .* has ended"):
            llm.generate([PROMPTS[0]], LONG, use_tqdm=False)
    assert all(ended(pid) for pid in pids.values())


def test_plans_large_and_small_are_run_in_their_order(folder, cluster, monkeypatch):
    """A large one goes through the store of objects, which takes longer than those that follow it."""
    from vllm_plugin_ray import ranks

    monkeypatch.setattr(ranks, "LARGE", 150)  # bytes: prompts beyond, steps of one token below
    sizes = []
    encoded = ranks.encode
    monkeypatch.setattr(ranks, "encode", lambda message: sizes.append(len(found := encoded(message))) or found)
    prompts = [list(range(3, 3 + n)) for n in (60, 1, 50, 2, 40, 3)]
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    with on_ray(folder, ranks=1, async_scheduling=True) as llm:
        there = [output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)]
        flights = llm.built.executor._flights
    assert not flights
    assert min(sizes[1:]) < 150 < max(sizes[1:]), sizes
    with LLM(folder, **SETTINGS) as llm:
        assert there == [output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)]


def test_an_error_in_a_rank_that_does_not_speak_is_told_while_nothing_runs(folder, cluster, monkeypatch):
    with on_ray(folder) as llm:
        executor, told = llm.built.executor, []
        executor.on_end = told.append
        llm.generate([PROMPTS[0]], PARAMS[2:], use_tqdm=False)
        executor._held.actors[1].launch.remote(b"no plan at all")
        assert comes_true(lambda: bool(told), 15)
        assert told[0].startswith("rank 1 (tp 1) on ")
        assert "DecodeError" in told[0] or "Validation" in told[0]


def test_an_executor_that_nobody_holds_gives_its_actors_back(folder, cluster):
    llm = on_ray(folder)
    executor = weakref.ref(llm.built.executor)
    pids = [place.pid for place in executor()._places.values()]
    end = executor()._end
    llm.built = None
    del llm
    gc.collect()
    assert executor() is None
    assert not end.alive
    assert all(ended(pid) for pid in pids)


def test_an_address_that_was_given_must_answer(folder, monkeypatch):
    from vllm_plugin_ray import cluster

    asked = []

    def init(address, **more):
        asked.append(address)
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.9:6379")
    with pytest.raises(ConnectionError):
        cluster.connect("auto")
    assert asked == ["auto"]
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(ConnectionError):
        cluster.connect("auto")
    assert asked == ["auto", "auto", "local"]


def test_what_does_not_fit_says_what_is_free(folder, cluster):
    with pytest.raises(TimeoutError, match=r"no room for 2 ranks of 5 CPU each \(PACK\) after 1 s; free are 2 CPU"):
        on_ray(folder, plugin={"ray": {"cpus_per_rank": 5, "start_timeout": 1.0}})


def test_a_placement_that_ray_does_not_know_is_refused(folder, cluster):
    with pytest.raises(ValueError, match="placement must be one of PACK, STRICT_PACK, SPREAD, STRICT_SPREAD"):
        on_ray(folder, plugin={"ray": {"placement": "TIGHT"}})


def test_what_a_rank_cannot_load_ends_the_start_with_its_reason(folder, tmp_path, cluster):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in Path(folder).iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000])
    with pytest.raises((RuntimeError, ValueError), match=r"safetensors"):
        on_ray(str(broken))


def test_it_is_offered_to_who_names_it_only():
    from vllm_plugin_ray import executor
    from vllm_plugin_ray.settings import Settings

    device = Device("cpu")
    query = ExecutorQuery(name="", world_size=2, nodes=1, device=device)
    assert executor(query, Settings()) is None
    offer = executor(ExecutorQuery(name="ray", world_size=2, nodes=1, device=device), Settings(cpus_per_rank=3))
    assert (offer.name, offer.options["cpus"]) == ("ray", 3)


def test_importing_the_plugin_imports_neither_ray_nor_torch():
    code = "import sys, vllm_plugin_ray; sys.exit(any(m in sys.modules for m in ('ray', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
