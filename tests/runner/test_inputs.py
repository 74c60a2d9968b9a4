"""Inputs gathered from the rows."""

import pytest
import torch

from vllm_core.interfaces.steps import RowInit, RowSampling, StepPlan
from vllm_core.runner.inputs import check, prepare
from vllm_core.runner.rows import Rows

CPU = torch.device("cpu")


def plan(rows, num_tokens, num_drafts, samples, kv_bounds, inits=()):
    return StepPlan(
        step=4,
        inits=list(inits),
        growths=[],
        copies=[],
        rows=rows,
        num_tokens=num_tokens,
        num_drafts=num_drafts,
        samples=samples,
        kv_bounds=kv_bounds,
    )


@pytest.fixture
def rows():
    """Row 0: a prompt of 7, 2 computed. Row 1: decoding after 5. Row 3: decoding after 9, one draft of two guessed."""
    rows = Rows(4, 20, 2, [4, 8], CPU)
    taken = [
        RowInit(row=0, token_ids=list(range(10, 17)), num_computed=2, pages=[[1, 2], [3]], sampling=RowSampling()),
        RowInit(row=1, token_ids=list(range(20, 26)), num_computed=5, pages=[[4, 5], [6]], sampling=RowSampling()),
        RowInit(
            row=3, token_ids=list(range(30, 40)), num_computed=9, pages=[[7, 8, 9], [10, 11]], sampling=RowSampling()
        ),
    ]
    rows.apply(plan([], [], [], [], [], taken))
    rows.token_ids[3, 10] = 77
    return rows


@pytest.fixture
def inputs(rows):
    return prepare(plan([3, 0, 1], [3, 4, 1], [2, 0, 0], [True, False, True], [12, 6, 6]), rows)


def test_positions_and_ids_continue_where_each_row_stands(inputs):
    assert inputs.batch.positions.tolist() == [9, 10, 11, 2, 3, 4, 5, 5]
    assert inputs.ids.tolist() == [39, 77, 0, 12, 13, 14, 15, 25]  # a draft without a guess reads token 0


def test_each_cache_group_sees_its_own_tables_and_slots(inputs):
    small, large = inputs.batch.attention
    assert small.query_starts.tolist() == [0, 3, 7, 8]
    assert small.kv_lens.tolist() == [12, 6, 6]
    assert small.block_table.tolist() == [[7, 8, 9], [1, 2, 0], [4, 5, 0]]
    assert small.slots.tolist() == [9 * 4 + 1, 9 * 4 + 2, 9 * 4 + 3, 1 * 4 + 2, 1 * 4 + 3, 2 * 4, 2 * 4 + 1, 5 * 4 + 1]
    assert large.block_table.tolist() == [[10, 11], [3, 0], [6, 0]]
    assert large.slots.tolist() == [11 * 8 + 1, 11 * 8 + 2, 11 * 8 + 3, *range(3 * 8 + 2, 3 * 8 + 6), 6 * 8 + 5]
    assert small.block_table.dtype == small.kv_lens.dtype == small.query_starts.dtype == torch.int32
    assert small.slots.dtype == inputs.batch.positions.dtype == torch.int64


def test_logits_are_wanted_at_each_draft_and_the_last_token_of_rows_that_sample(inputs):
    assert inputs.logits_at.tolist() == [0, 1, 2, 7]
    assert inputs.logits_rows.tolist() == [3, 3, 3, 1]
    assert inputs.logits_slots.tolist() == [0, 1, 2, 3]
    assert inputs.logits_first.tolist() == [0, 3]
    assert inputs.sampling.tolist() == [0, 2]
    assert inputs.sampling_rows.tolist() == inputs.sampling_rows_host.tolist() == [3, 1]
    assert inputs.advance.tolist() == [1, 4, 1]


def test_a_token_without_a_page_is_written_to_the_page_of_nobody(rows):
    rows.block_tables[0][1, 1] = 0
    step = prepare(plan([1], [1], [0], [True], [6]), rows).batch.attention[0]
    assert step.slots.tolist() == [1]  # a place in page 0


def test_a_token_past_its_rows_block_table_is_not_written_to_the_pages_of_the_next_row(rows):
    rows.num_computed[1] = 60
    step = prepare(plan([1], [3], [2], [True], [22]), rows).batch.attention[0]
    assert step.slots.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tokens": [3]}, "parallel lists have lengths"),
        ({"rows": [1, 1]}, "scheduled twice"),
        ({"rows": [1, 4]}, "rows run from 0 to 3"),
        ({"kv_bounds": [6, 23]}, "may reach 23 cached tokens; there is room for 22"),
        ({"num_drafts": [0, 3]}, "row 3: 3 tokens of which 3 are drafts"),
        ({"samples": [True, False]}, "samples=False"),
        ({"num_tokens": [1, 0]}, "row 3: 0 tokens"),
        ({"kv_bounds": [6, 2]}, "a cache of at most 2 tokens"),
    ],
)
def test_a_plan_that_contradicts_itself_or_the_rows_is_refused(rows, change, message):
    good = {
        "rows": [1, 3],
        "num_tokens": [1, 3],
        "num_drafts": [0, 2],
        "samples": [True, True],
        "kv_bounds": [6, 12],
    }
    check(plan(**good), rows)
    with pytest.raises(ValueError, match="step 4") as error:
        check(plan(**good | change), rows)
    assert message in str(error.value)
