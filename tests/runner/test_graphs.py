"""Steps of fixed size: padded, run again and again, with the tokens of steps that run op by op.

Here a "recorded" step runs op by op, too; what a CUDA graph makes of it is in test_on_gpu.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from vllm_core.interfaces.steps import RowSampling
from vllm_core.runner.graphs import decode_sizes, ending_of
from vllm_core.runner.staging import HostBuffers
from vllm_core.runner.static_step import DRAW, FORWARD, GREEDY

from .proposers import HiddenHead, PromptLookup
from .test_changes import ASKED
from .test_runner import PROMPTS, SAMPLINGS, requests
from .toy import Driver, Request, make_runner

RANDOM = [RowSampling(temperature=0.5 + i, seed=i) for i in range(4)]


class Recorder:
    """Which steps were recorded, and how often each ran."""

    def __init__(self):
        self.runs = {}

    def __call__(self, step):
        self.runs[step.size] = 0

        def replay():
            self.runs[step.size] += 1
            step.run()

        return replay

    def ran(self, ending):
        return sum(n for size, n in self.runs.items() if size.ending == ending)


def recorded(proposer=None, k=0, **more):
    record = Recorder()
    runner = make_runner(proposer, k, record=record, max_tokens=32, **more)
    runner.graphs.mixed = [8, 16, 32]
    return runner, record


@pytest.mark.parametrize("chunk", [1000, 3])
@pytest.mark.parametrize("which", [[0], [0, 1], range(4)])
def test_greedy_rows_give_the_same_tokens(which, chunk):
    work = [Request(i, list(PROMPTS[i])) for i in which]
    plain = Driver(make_runner()).generate([Request(i, list(PROMPTS[i])) for i in which], 12, chunk=chunk)
    runner, record = recorded()
    assert Driver(runner).generate(work, 12, chunk=chunk) == plain
    assert record.ran(GREEDY) >= 12
    assert not record.ran(FORWARD)


def test_random_rows_draw_the_same_tokens_beside_greedy_ones():
    def work():
        return [
            Request(i, list(p), s) for i, (p, s) in enumerate(zip(PROMPTS, [SAMPLINGS[0], *RANDOM[1:]], strict=True))
        ]

    runner, record = recorded()
    assert Driver(runner).generate(work(), 12) == Driver(make_runner()).generate(work(), 12)
    assert record.ran(DRAW) >= 12


@pytest.mark.parametrize("any_sampling", [False, True])
def test_truncation_stands_in_a_recorded_step_only_if_the_sampler_needs_no_host_facts(any_sampling):
    runner, record = recorded(any_sampling=any_sampling)
    assert Driver(runner).generate(requests(), 12) == Driver(make_runner()).generate(requests(), 12)
    assert record.ran(DRAW if any_sampling else FORWARD) >= 12


def test_rows_that_ask_for_changes_are_sampled_outside_the_recorded_step():
    def work():
        return [Request(i, list(p), s) for i, (p, s) in enumerate(zip(PROMPTS, ASKED, strict=True))]

    runner, record = recorded()
    assert Driver(runner).generate(work(), 12) == Driver(make_runner()).generate(work(), 12)
    assert record.ran(FORWARD) >= 12


@pytest.mark.parametrize("make", [lambda: PromptLookup(2, {"ngram": 1}), lambda: HiddenHead(2, {"taps": [0]})])
def test_drafts_are_verified_after_a_recorded_forward(make):
    def run(runner, proposer):
        proposer.bind(runner.model, None)
        return Driver(runner).generate(requests(), 15)

    proposer = make()
    runner, record = recorded(proposer, 2)
    with_graphs = run(runner, proposer)
    proposer = make()
    assert with_graphs == run(make_runner(proposer, 2), proposer)
    assert record.ran(FORWARD) >= 5


def test_padding_moves_no_row_and_writes_to_nobodys_page():
    runner, _ = recorded()
    Driver(runner).generate([Request(2, list(PROMPTS[0]))], 6)
    rows = runner.rows
    assert rows.num_computed[rows.nobody] == rows.num_tokens[rows.nobody] == 0
    assert not rows.token_ids[rows.nobody].any()
    assert all(not table[rows.nobody].any() for table in rows.block_tables)
    untouched = [i for i in range(rows.num_rows) if i != 2]
    assert not rows.num_tokens[untouched].any()


def test_sizes_reach_from_one_row_to_the_most():
    for most in (1, 3, 8, 63, 64, 200, 256, 1000):
        sizes = decode_sizes(most)
        assert (sizes[0], sizes[-1]) == (1, most)
        assert all(a < b <= 2 * a for a, b in pairwise(sizes))


def test_the_end_of_a_step_is_as_general_as_its_rows_need():
    def ending(greedy, top_k=0, truncated=False, any_sampling=False):
        return ending_of(np.array([greedy, True]), np.array([top_k, 5]), np.array([truncated, True]), any_sampling)

    assert ending(True) == GREEDY
    assert ending(False) == DRAW
    assert ending(False, top_k=3) == ending(False, truncated=True) == FORWARD
    assert ending(False, top_k=3, any_sampling=True) == DRAW


def test_host_buffers_take_turns():
    buffers, target = HostBuffers(8, torch.device("cpu")), torch.zeros(3, dtype=torch.int64)
    seen = []
    for i in range(2 * HostBuffers.SPARE):
        with buffers.take(3) as (host, move):
            seen.append(host.__array_interface__["data"][0])
            host[:] = i
            move(target)
        assert target.tolist() == [i] * 3
    assert seen[: HostBuffers.SPARE] == seen[HostBuffers.SPARE :]
    assert len(set(seen)) == HostBuffers.SPARE


def test_a_step_that_there_is_no_memory_to_record_runs_op_by_op():
    tries = []

    def record(step):
        tries.append(step.size)
        raise torch.OutOfMemoryError("full")

    runner = make_runner(record=record, max_tokens=32)
    assert Driver(runner).generate(requests([0]), 6) == Driver(make_runner()).generate(requests([0]), 6)
    assert set(Counter(tries).values()) == {2}  # once more with all memory given back, and then not each step


def test_a_step_is_recorded_if_memory_that_was_kept_for_reuse_suffices():
    tries = []

    def record(step):
        tries.append(step.size)
        if len(tries) % 2:
            raise torch.OutOfMemoryError("full")
        return step.run

    runner = make_runner(record=record, max_tokens=32)
    assert Driver(runner).generate(requests([0]), 6) == Driver(make_runner()).generate(requests([0]), 6)
    assert tries
    assert all(runner.graphs._recorded.values())
