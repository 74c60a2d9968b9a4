"""Ops of a step against plain loops over a random step's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vllm_core import ops
from vllm_core.interfaces.steps import PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.ops.noise import ACCEPT, SAMPLE, uniform
from vllm_core.runner.inputs import prepare
from vllm_core.runner.rows import Rows
from vllm_core.runner.step_ops import StepOps
from vllm_core.runner.verify import Emitted, sampling_tensors

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


@pytest.mark.parametrize("seed", range(25))
def test_inputs_and_slots_are_those_of_each_row_where_it_stands(seed):
    rows, plan, _ = a_step(seed)
    ids, positions, sequence, lengths = [], [], [], []
    slots: list[list[int]] = [[] for _ in BLOCKS]
    for s, (row, count) in enumerate(zip(plan.rows, plan.num_tokens, strict=True)):
        computed = int(rows.num_computed[row])
        lengths.append(computed + count)
        for position in range(computed, computed + count):
            ids.append(max(0, int(rows.token_ids[row, position])))
            positions.append(position)
            sequence.append(s)
            for group, size in enumerate(BLOCKS):
                page = int(rows.block_tables[group][row, position // size])
                slots[group].append(page * size + position % size)

    scheduled, starts = torch.tensor(plan.rows), torch.tensor([0, *np.cumsum(plan.num_tokens)])
    got = ops.step_inputs(rows.token_ids, rows.num_computed, scheduled, starts, len(ids))
    assert [part.tolist() for part in got] == [ids, positions, sequence, lengths]
    assert [part.dtype for part in got] == [torch.int64, torch.int64, torch.int64, torch.int32]
    for group, size in enumerate(BLOCKS):
        table, where = ops.page_slots(rows.block_tables[group], scheduled, got[2], got[1], size, 2)
        assert torch.equal(table, rows.block_tables[group][scheduled, :2])
        assert where.tolist() == slots[group]
        assert (table.dtype, where.dtype) == (torch.int32, torch.int64)

    inputs = prepare(plan, rows)
    assert inputs.ids.tolist() == ids
    for group, step in enumerate(inputs.batch.attention):
        assert step.slots.tolist() == slots[group]
        assert step.kv_lens.tolist() == lengths


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
    got = ops.sampling_rows(rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seed, lines, ends, stream)
    for mine, name in zip(got, ("temperature", "top_k", "top_p", "min_p"), strict=False):
        assert torch.equal(mine, getattr(rows, name)[lines])
    assert torch.equal(got[4], uniform(rows.seed[lines], ends, stream))
    tensors = sampling_tensors(rows, StepOps(), lines, np.unique(lines.numpy()), ends, stream)
    for mine, name in zip(got, ("temperature", "top_k", "top_p", "min_p", "noise"), strict=True):
        assert torch.equal(mine, getattr(tensors, name))


def state(rows: Rows) -> list[torch.Tensor]:
    return [rows.token_ids, rows.num_tokens, rows.num_computed]


def drawn(inputs, make) -> Emitted:
    accepted = torch.from_numpy(make.integers(0, inputs.num_drafts.numpy() + 1))
    width = 1 + inputs.max_drafts
    token_ids = torch.from_numpy(make.integers(0, 1000, (len(accepted), width)))
    return Emitted(torch.where(torch.arange(width) <= accepted[:, None], token_ids, -1), accepted)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("padding", [None, 0, 3])
def test_rows_move_on_past_what_they_emitted(seed, padding):
    """With padding, every sequence has a line, and further ones of a spare row have no token."""
    rows, plan, make = a_step(seed)
    inputs = prepare(plan, rows)
    emitted = drawn(inputs, make)
    mine = [t.clone() for t in state(rows)]
    want = torch.full((len(plan.rows), 1 + DRAFTS), -1, dtype=torch.int32)
    for row, count in zip(plan.rows, inputs.advance.tolist(), strict=True):
        rows.num_computed[row] += count
    for line, s in enumerate(inputs.sampling.tolist()):
        row, accepted, tokens = plan.rows[s], int(emitted.accepted[line]), emitted.token_ids[line].int()
        known = int(rows.num_tokens[row])
        rows.token_ids[row, known : known + len(tokens)] = tokens
        rows.num_tokens[row] += 1 + accepted
        rows.num_computed[row] += accepted
        want[s, : len(tokens)] = tokens

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
