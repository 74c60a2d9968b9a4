"""The executor "mp": real processes give what one gives, and a rank that fails is named while nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.async_engine.helpers import ended
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, AsyncLLM, SamplingParams
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.pids import threads_of

pytestmark = pytest.mark.slow

SETTINGS = {"dtype": "float32", "max_num_seqs": 8, "max_num_batched_tokens": 64, "max_model_len": 250}
PROMPTS = [[5, 60, 70, 200, 399], list(range(3, 90)), [7], [*list(range(3, 90)), 8]]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2, prompt_logprobs=1),
    SamplingParams(temperature=0.9, top_p=0.9, seed=5, max_tokens=30, ignore_eos=True),
    SamplingParams(temperature=0.7, top_k=9, seed=6, max_tokens=12, n=2, presence_penalty=0.5, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=25, ignore_eos=True),
]
LONG = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model()))


@pytest.fixture(scope="module")
def alone(folder):
    with LLM(folder, **SETTINGS) as llm:
        return answers(llm)


def answers(llm):
    outputs = llm.generate(PROMPTS, PARAMS, use_tqdm=False)
    return [[completion.token_ids for completion in output.outputs] for output in outputs]


def ranks_of(llm):
    return [rank.process.pid for rank in llm.built.executor._ranks]


def children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in listed.split()]


@pytest.mark.parametrize("more", [{}, {"async_scheduling": False}, {"speculative_config": {"method": "ngram",
                         "num_speculative_tokens": 2}}], ids=["overlap", "plain", "drafts"])  # fmt: skip
def test_two_tensor_ranks_give_what_one_gives(folder, alone, more):
    with LLM(folder, tensor_parallel_size=2, **SETTINGS, **more) as llm:
        found = answers(llm)
        pids = ranks_of(llm)
        assert len(pids) == 2
        share = llm.built.capacity.memory["weights"]
    assert found[0] == alone[0]
    assert found[3] == alone[3]
    if not more.get("speculative_config"):
        assert found == alone
    assert all(ended(pid, 10) for pid in pids)
    with LLM(folder, **SETTINGS) as llm:
        assert share < 0.75 * llm.built.capacity.memory["weights"]


def test_callers_in_several_threads_get_their_own_answers(folder, alone):
    with LLM(folder, tensor_parallel_size=2, **SETTINGS) as llm, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: answers(llm), range(3)))
    assert [(one[0], one[3]) for one in found] == [(alone[0], alone[3])] * 3


def test_four_ranks_share_two_key_value_heads(folder, alone):
    with LLM(folder, tensor_parallel_size=4, **SETTINGS) as llm:
        found = answers(llm)
    assert (found[0], found[3]) == (alone[0], alone[3])


def test_one_rank_in_a_process_of_its_own_gives_what_it_gives_here(folder, alone):
    with LLM(folder, distributed_executor_backend="mp", **SETTINGS) as llm:
        assert answers(llm) == alone


def test_a_grammar_holds_on_all_ranks(folder):
    pytest.importorskip("xgrammar")
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=12, structured_outputs={"regex": "[ab]{4}"})
    with LLM(folder, tensor_parallel_size=2, **SETTINGS) as llm:
        text = llm.generate("a", params, use_tqdm=False)[0].outputs[0].text
    assert len(text) == 4
    assert set(text) <= set("ab")


def test_a_rank_that_is_killed_is_named_at_once_and_the_other_ends(folder):
    llm = LLM(folder, tensor_parallel_size=2, **SETTINGS)
    llm.generate([PROMPTS[0]], PARAMS[3], use_tqdm=False)
    pids = ranks_of(llm)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(EngineDeadError, match=rf"rank 1 \(tp 1\) on .*, cpu \(pid {pids[1]}\) was killed by SIGKILL"):
        llm.generate([PROMPTS[0]], LONG, use_tqdm=False)
    llm.shutdown()
    assert all(ended(pid, 10) for pid in pids)


def test_a_rank_that_stops_is_named_when_another_has_waited_for_it(folder):
    llm = LLM(folder, tensor_parallel_size=2, collective_timeout=2.0, **SETTINGS)
    pids = ranks_of(llm)
    os.kill(pids[0], signal.SIGSTOP)
    with pytest.raises(EngineDeadError, match=r"rank 0 \(tp 0\) on .* is stopped by a signal: rank 1 .* waited"):
        llm.generate([PROMPTS[0]], LONG, use_tqdm=False)
    llm.shutdown()
    assert all(ended(pid, 10) for pid in pids)


def test_what_a_rank_cannot_load_ends_the_start_with_its_reason(folder, tmp_path):
    broken = write(tmp_path / "broken", tiny_model())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000])
    with pytest.raises((RuntimeError, ValueError, OSError)) as error:
        LLM(str(broken), tensor_parallel_size=2, **SETTINGS)
    assert "safetensors" in str(error.value)


@pytest.mark.parametrize("ranks", [3, 7])
def test_heads_that_do_not_divide_are_refused_before_anything_starts(folder, ranks):
    with pytest.raises(ValueError, match=f"cannot be (split|repeated) over {ranks} ranks"):
        LLM(folder, tensor_parallel_size=ranks, **SETTINGS)


def test_the_end_of_the_engines_process_is_the_end_of_its_ranks(folder):
    program = (
        "import sys, time\nfrom vllm_core import LLM\n"
        f"llm = LLM({folder!r}, tensor_parallel_size=2, **{SETTINGS!r})\n"
        "print(*[r.process.pid for r in llm.built.executor._ranks], flush=True)\ntime.sleep(60)"
    )
    engine = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in engine.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGSTOP)  # even one that can do nothing about it
    engine.kill()
    engine.wait()
    assert all(ended(pid, 10) for pid in pids)


def test_a_server_hears_of_a_killed_rank_while_nothing_runs_and_builds_the_next_engine(folder):
    async def go():
        llm = AsyncLLM(folder, tensor_parallel_size=2, restarts=1, **SETTINGS)
        try:
            first = [output async for output in llm.generate(PROMPTS[0], PARAMS[3])][-1]
            ranks = children(llm.pid)
            assert len(ranks) == 2
            os.kill(ranks[1], signal.SIGKILL)
            changed = await asyncio.wait_for(llm.state_change(), 10)
            assert changed == "restarting"
            assert all(ended(pid, 10) for pid in ranks)
            assert await asyncio.wait_for(llm.state_change(), 60) == "ready"
            again = [output async for output in llm.generate(PROMPTS[0], PARAMS[3])][-1]
            assert again.outputs[0].token_ids == first.outputs[0].token_ids
            return children(llm.pid)
        finally:
            llm.shutdown()

    assert all(ended(pid, 10) for pid in asyncio.run(go()))


def test_ranks_without_work_use_no_processor(folder):
    with LLM(folder, tensor_parallel_size=2, **SETTINGS) as llm:
        llm.generate([PROMPTS[0]], PARAMS[3], use_tqdm=False)
        time.sleep(0.3)

        def seconds():
            return sum(thread.seconds for pid in ranks_of(llm) for thread in (threads_of(pid) or {}).values())

        before = seconds()
        time.sleep(2)
        assert seconds() - before <= 0.04
