"""Device rows: taking, growing, resetting."""

import pytest
import torch

from vllm_core.interfaces.steps import PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.runner.rows import Rows

CPU = torch.device("cpu")


def plan(inits=(), growths=()):
    return StepPlan(
        step=9,
        inits=list(inits),
        growths=list(growths),
        copies=[],
        rows=[],
        num_tokens=[],
        num_drafts=[],
        samples=[],
        kv_bounds=[],
    )


def init(row, ids, pages=((), ()), computed=0, **sampling):
    return RowInit(
        row=row,
        token_ids=ids,
        num_computed=computed,
        pages=[list(p) for p in pages],
        sampling=RowSampling(**sampling),
    )


def make(max_model_len=16, num_drafts=2):
    return Rows(4, max_model_len, num_drafts, [4, 8], CPU)


def test_a_taken_row_holds_what_the_plan_says_and_other_rows_are_untouched():
    rows = make()
    rows.apply(plan([init(2, [5, 6, 7], ([3, 4], [9]), computed=1, temperature=0.5, top_k=3, top_p=0.25, seed=-1)]))
    assert rows.token_ids[2, :5].tolist() == [5, 6, 7, -1, -1]
    assert (rows.num_tokens[2], rows.num_computed[2]) == (3, 1)
    assert rows.block_tables[0][2].tolist() == [3, 4, 0, 0, 0, 0]
    assert rows.block_tables[1][2].tolist() == [9, 0, 0, 0]
    assert (rows.temperature[2], rows.top_k[2], rows.top_p[2], rows.seed[2]) == (0.5, 3, 0.25, -1)
    for tensor in (rows.token_ids, rows.num_tokens, *rows.block_tables, rows.seed, rows.temperature):
        assert not tensor[[0, 1, 3]].any()


def test_taking_a_row_again_leaves_nothing_of_the_request_before():
    rows = make()
    rows.apply(plan([init(1, [1] * 16, ([1, 2, 3, 4], [5, 6]), computed=12, top_k=7, top_p=0.5, seed=3)]))
    rows.apply(plan([init(1, [2], ([7], [8]), temperature=0.0)]))
    assert rows.token_ids[1, :3].tolist() == [2, -1, -1]
    assert (rows.num_tokens[1], rows.num_computed[1]) == (1, 0)
    assert rows.block_tables[0][1].tolist() == [7, 0, 0, 0, 0, 0]
    assert rows.block_tables[1][1].tolist() == [8, 0, 0, 0]
    assert (rows.temperature[1], rows.top_k[1], rows.top_p[1], rows.seed[1]) == (0, 0, 1, 0)
    assert (rows.host_greedy[1], rows.host_top_k[1], rows.host_top_p[1]) == (True, 0, False)


def test_pages_grow_in_the_plan_that_takes_the_row_and_in_later_ones():
    rows = make()
    rows.apply(
        plan(
            [init(0, [1, 2], ([1], [2])), init(3, [3], ([3], []))],
            [
                PageGrowth(row=0, group=0, first_block=1, pages=[4, 5]),
                PageGrowth(row=3, group=1, first_block=0, pages=[6]),
            ],
        )
    )
    rows.apply(plan(growths=[PageGrowth(row=0, group=0, first_block=3, pages=[7])]))
    assert rows.block_tables[0][0].tolist() == [1, 4, 5, 7, 0, 0]
    assert rows.block_tables[1][0].tolist() == [2, 0, 0, 0]
    assert rows.block_tables[0][3].tolist() == [3, 0, 0, 0, 0, 0]
    assert rows.block_tables[1][3].tolist() == [6, 0, 0, 0]


def test_a_freed_window_block_points_at_the_page_of_nobody():
    rows = make()
    rows.apply(plan([init(0, [1] * 9, ([1, 2, 3], [4, 5]))]))
    rows.apply(plan(growths=[PageGrowth(row=0, group=0, first_block=0, pages=[0])]))
    assert rows.block_tables[0][0].tolist() == [0, 2, 3, 0, 0, 0]


def test_seeds_of_64_bits_keep_all_their_bits():
    rows = make()
    rows.apply(plan([init(0, [1], seed=2**64 - 2), init(1, [1], seed=2**63), init(2, [1], seed=-5)]))
    assert rows.seed[:3].tolist() == [-2, -(2**63), -5]


@pytest.mark.parametrize(
    ("inits", "growths", "message"),
    [
        ([init(4, [1])], [], "row 4 was taken, but rows run from 0 to 3"),
        ([init(0, [1] * 20)], [], "given 20 tokens; a row has room for 19"),
        ([init(0, [1], (range(1, 8), []))], [], "page 7 of cache group 0; its block table has 5 entries of 4 tokens"),
        ([], [PageGrowth(row=1, group=1, first_block=3, pages=[1])], "row 1 was given page 4 of cache group 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_step_and_the_row(inits, growths, message):
    with pytest.raises(ValueError, match="step 9") as error:
        make().apply(plan(inits, growths))
    assert message in str(error.value)


def test_a_temperature_that_is_zero_on_the_device_is_greedy_to_the_host_as_well():
    rows = make()
    rows.apply(plan([init(1, [1], temperature=1e-60), init(2, [1], temperature=1e-30)]))
    assert (rows.temperature == 0).tolist()[:-1] == rows.host_greedy.tolist() == [True, True, False, True]
