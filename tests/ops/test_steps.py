"""Ops of a step against what the runner does with host lists, on random steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_core import ops
from vllm_core.interfaces.steps import PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.ops.noise import ACCEPT, SAMPLE, uniform
from vllm_core.runner.inputs import prepare
from vllm_core.runner.rows import Rows
from vllm_core.runner.verify import Emitted, advance, sampling_tensors

CPU = torch.device("cpu")
ROWS, LENGTH, DRAFTS, BLOCKS = 7, 40, 2, (4, 16)


def a_step(seed: int):
    """Rows in random states and a random step of them: chunks, decoding rows with and without drafts."""
    make = np.random.default_rng(seed)
    rows = Rows(ROWS, LENGTH, DRAFTS, BLOCKS, CPU)
    inits, scheduled = [], []
    for row in make.permutation(ROWS)[: make.integers(1, ROWS + 1)].tolist():
        known = int(make.integers(1, LENGTH))
        decoding = bool(make.integers(0, 2))
        computed = known - 1 if decoding else int(make.integers(0, known))
        chunk = known - computed
        drafts = int(make.integers(0, DRAFTS + 1)) if decoding else 0
        tokens = 1 + drafts if decoding else int(make.integers(1, chunk + 1))
        pages = [make.integers(1, 99, -(-(computed + tokens) // size)).tolist() for size in BLOCKS]
        sampling = RowSampling(
            temperature=float(make.choice([0, 0.7, 1.3])),
            top_k=int(make.integers(0, 9)),
            top_p=float(make.choice([1.0, 0.9])),
            min_p=float(make.choice([0.0, 0.1])),
            seed=int(make.integers(-(2**63), 2**63 - 1)),
        )
        inits.append(RowInit(row, make.integers(0, 1000, known).tolist(), computed, pages, sampling))
        samples = decoding or computed + tokens == known
        scheduled.append((row, tokens, drafts, samples, computed + tokens))
    plan = StepPlan(1, inits, [PageGrowth(inits[0].row, 0, 10, [5])], [], *map(list, zip(*scheduled, strict=True)))
    rows.apply(plan)
    for init in inits:
        if make.integers(0, 2):  # else its drafts have no guess
            at = len(init.token_ids)
            rows.token_ids[init.row, at : at + DRAFTS] = torch.from_numpy(make.integers(0, 1000, DRAFTS))
    return rows, plan, make


def starts_of(plan: StepPlan) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(plan.num_tokens)])


@pytest.mark.parametrize("seed", range(25))
def test_inputs_and_slots_are_those_that_the_host_would_lay_out(seed):
    rows, plan, _ = a_step(seed)
    want = prepare(plan, rows)
    ids, positions, sequence, kv_lens = ops.step_inputs(
        rows.token_ids, rows.num_computed, want.rows, starts_of(plan), sum(plan.num_tokens)
    )
    assert torch.equal(ids, want.ids)
    assert ids.dtype == want.ids.dtype
    assert torch.equal(positions, want.batch.positions)
    assert positions.dtype == torch.int64
    assert sequence.tolist() == np.repeat(np.arange(len(plan.rows)), plan.num_tokens).tolist()
    for group, step in enumerate(want.batch.attention):
        assert torch.equal(kv_lens, step.kv_lens)
        assert kv_lens.dtype == step.kv_lens.dtype
        width = step.block_table.shape[1]
        table, slots = ops.page_slots(
            rows.block_tables[group], want.rows, sequence, positions, rows.block_sizes[group], width
        )
        assert torch.equal(table, step.block_table)
        assert table.dtype == step.block_table.dtype
        assert torch.equal(slots, step.slots)
        assert slots.dtype == step.slots.dtype


def test_a_sequence_without_tokens_has_nothing_in_the_cache_and_no_place_in_the_batch():
    token_ids = torch.tensor([[5, 6, 7, 8], [-1, -1, -1, -1], [1, 2, 3, 4]], dtype=torch.int32)
    computed = torch.tensor([2, 9, 1], dtype=torch.int32)
    ids, positions, sequence, kv_lens = ops.step_inputs(
        token_ids, computed, torch.tensor([1, 2, 1, 0, 1]), torch.tensor([0, 0, 2, 2, 4, 4]), 4
    )
    assert kv_lens.tolist() == [0, 3, 0, 4, 0]
    assert sequence.tolist() == [1, 1, 3, 3]
    assert positions.tolist() == [1, 2, 2, 3]
    assert ids.tolist() == [2, 3, 7, 8]


def test_a_token_past_its_rows_room_or_pages_reads_the_last_id_and_writes_to_the_page_of_nobody():
    token_ids = torch.tensor([[5, 6, -1]], dtype=torch.int32)
    one = torch.tensor([0])
    ids, positions, sequence, kv_lens = ops.step_inputs(
        token_ids, torch.tensor([2], dtype=torch.int32), one, torch.tensor([0, 9]), 9
    )
    assert positions.tolist() == list(range(2, 11))
    assert kv_lens.tolist() == [11]
    assert ids.tolist() == [0] * 9  # the last id is no guess
    table = torch.tensor([[3, 7, 0]], dtype=torch.int32)
    blocks, slots = ops.page_slots(table, one, sequence, positions, 4, 1)
    assert blocks.tolist() == [[3]]
    assert slots.tolist() == [14, 15, 28, 29, 30, 31, 0, 1, 2]


@pytest.mark.parametrize("stream", [SAMPLE, ACCEPT])
def test_lines_are_drawn_with_their_rows_parameters_and_noise(stream):
    rows, _, make = a_step(3)
    lines = torch.from_numpy(make.integers(0, ROWS, 50))
    ends = torch.from_numpy(make.integers(0, 10_000, 50))
    seeds = rows.seed[lines]
    want = sampling_tensors(rows, lines, np.unique(lines.numpy()), ends, seeds, stream)
    got = ops.sampling_rows(rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seed, lines, ends, stream)
    for mine, name in zip(got, ("temperature", "top_k", "top_p", "min_p", "noise"), strict=True):
        theirs = getattr(want, name)
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert torch.equal(got[4], uniform(seeds, ends, stream))


def state(rows: Rows) -> list[torch.Tensor]:
    return [rows.token_ids, rows.num_tokens, rows.num_computed]


def drawn(inputs, make) -> Emitted:
    accepted = torch.from_numpy(make.integers(0, inputs.num_drafts.numpy() + 1))
    width = 1 + inputs.max_drafts
    token_ids = torch.from_numpy(make.integers(0, 1000, (len(accepted), width)))
    return Emitted(torch.where(torch.arange(width) <= accepted[:, None], token_ids, -1), accepted)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("padding", [None, 0, 3])
def test_rows_move_on_as_the_runner_moves_them(seed, padding):
    """With padding, every sequence has a line, and further ones of a spare row have no token."""
    rows, plan, make = a_step(seed)
    inputs = prepare(plan, rows)
    emitted = drawn(inputs, make)
    mine = [t.clone() for t in state(rows)]
    advance(rows, inputs, emitted)
    want = torch.full((len(plan.rows), 1 + DRAFTS), -1, dtype=torch.int32)
    want[:, : emitted.token_ids.shape[1]].index_copy_(0, inputs.sampling, emitted.token_ids.int())

    count = len(plan.rows) + (padding or 0)
    result = torch.randint(0, 9, (count, 1 + DRAFTS), dtype=torch.int32)
    if padding is None:
        ops.commit_tokens(
            *mine, inputs.rows, inputs.advance, inputs.sampling, emitted.token_ids, emitted.accepted, result
        )
    else:
        spare = torch.tensor([plan.rows[0]] * padding, dtype=torch.int64)  # even a row that is in the step
        lines = torch.randint(0, 1000, (count, emitted.token_ids.shape[1]))
        accepted = torch.randint(0, 3, (count,))
        emits = torch.zeros(count, dtype=torch.int64)
        lines[inputs.sampling], accepted[inputs.sampling] = emitted.token_ids, emitted.accepted
        emits[inputs.sampling] = 1
        ops.commit_tokens(
            *mine,
            torch.cat((inputs.rows, spare)),
            torch.cat((inputs.advance, torch.zeros_like(spare))),
            torch.arange(count),
            lines,
            accepted,
            result,
            emits,
        )
    for got, theirs in zip(mine, state(rows), strict=True):
        assert torch.equal(got, theirs)
    assert torch.equal(result[: len(plan.rows)], want)
    assert (result[len(plan.rows) :] == -1).all()


def test_a_line_that_does_not_emit_hides_no_other_lines_tokens():
    token_ids = torch.zeros(2, 4, dtype=torch.int32)
    known, computed = torch.tensor([4, 1], dtype=torch.int32), torch.tensor([3, 0], dtype=torch.int32)
    result = torch.empty(2, 1, dtype=torch.int32)
    ops.commit_tokens(
        token_ids,
        known,
        computed,
        torch.tensor([1, 0]),
        torch.tensor([1, 0]),
        torch.tensor([0, 0, 1]),
        torch.tensor([[7], [8], [9]]),
        torch.tensor([0, 0, 0]),
        result,
        torch.tensor([False, True, False]),
    )
    assert result.tolist() == [[8], [-1]]
    assert token_ids.tolist() == [[0, 0, 0, 0], [0, 8, 0, 0]]
    assert known.tolist() == [4, 2]
    assert computed.tolist() == [3, 1]
