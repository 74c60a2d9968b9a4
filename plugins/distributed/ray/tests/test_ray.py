"""Ranks on a Ray cluster give what one rank gives, and a rank that ends is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vllm_core import LLM, SamplingParams
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ExecutorQuery
from vllm_core.testing.reference import Reference

ray = pytest.importorskip("ray")
transformers = pytest.importorskip("transformers")
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
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(folder):
    with LLM(folder, **SETTINGS) as llm:
        return answers(llm)


def answers(llm):
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS, use_tqdm=False)]


def on_ray(folder, ranks=2, **more):
    return LLM(folder, tensor_parallel_size=ranks, distributed_executor_backend="ray", **SETTINGS, **more)


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
