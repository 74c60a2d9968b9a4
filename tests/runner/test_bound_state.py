"""Where a step reads and keeps recurrent states, held against the table's meaning entry by entry."""

import random

import pytest
import torch

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import CacheGroup, RecurrentCache
from vllm_core.interfaces.steps import NULL_PAGE
from vllm_core.runner.bound_state import PagedState, state_step

SPEC = RecurrentCache(shapes=((2, 3), (5,)), dtypes=("float32", "bfloat16"))


def step_of(before, lengths, tables):
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    after = [b + n for b, n in zip(before, lengths, strict=True)]
    return AttentionStep(
        num_tokens=sum(lengths),
        query_lens=lengths,
        kv_bounds=after,
        query_starts=starts,
        kv_lens=torch.tensor(after, dtype=torch.int32),
        block_table=torch.tensor(tables, dtype=torch.int32),
        slots=torch.zeros(sum(lengths), dtype=torch.int64),
    )


@pytest.mark.parametrize("ring", [1, 2, 4])
@pytest.mark.parametrize("size", [3, 8])
def test_states_are_kept_where_the_table_says(ring, size):
    make = random.Random(ring * size)
    for _ in range(50):
        rows = make.randint(1, 4)
        before = [make.choice([0, make.randint(0, 30)]) for _ in range(rows)]
        lengths = [make.randint(1, 20) for _ in range(rows)]
        width = ring + 60 // size
        pages = iter(make.sample(range(1, 1000), rows * width))
        tables = [[next(pages) for _ in range(width)] for _ in range(rows)]
        for table in tables:  # checkpoints that found no room
            for entry in range(ring, width):
                table[entry] = make.choice([table[entry], NULL_PAGE])
        step = state_step(step_of(before, lengths, tables), size, ring)
        for i, (n, length, table) in enumerate(zip(before, lengths, tables, strict=True)):
            assert step.read[i] == table[n % ring]
            assert step.begins[i] == (n == 0)
            want = {(m, table[(n + m) % ring]) for m in range(max(1, length - ring + 1), length + 1)}
            want |= {(m, table[ring + (n + m) // size - 1]) for m in range(1, length + 1) if (n + m) % size == 0}
            got = set(zip(step.keep_after[i].tolist(), step.keep_in[i].tolist(), strict=True))
            assert {(m, page) for m, page in got if page != NULL_PAGE} == {(m, p) for m, p in want if p != NULL_PAGE}


def test_a_sequence_begins_with_zeros_whatever_lies_in_its_page():
    state = PagedState("mixer", SPEC, ring=1)
    pages = torch.full((4, 64), 0xFF, dtype=torch.uint8)  # NaN
    state.attach(CacheGroup(index=0, spec=SPEC, names=("mixer",), block_size=8), pages)
    for view in state.states:
        view[2] = 7
    step = step_of([0, 5], [3, 1], [[1], [2]])
    batch = Batch(num_tokens=4, positions=torch.zeros(4), attention=[step], metadata=[None])
    matrix, vector = state.before(batch)
    assert matrix.shape == (2, 2, 3)
    assert vector.dtype == torch.bfloat16
    for found in (matrix, vector):
        assert found[0].eq(0).all()
        assert found[1].eq(7).all()
    assert state.of(batch) is state.of(batch)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (RecurrentCache(shapes=((3,), (4,)), dtypes=("int8", "float32")), "begin at byte 3 .* wide dtypes first"),
        (RecurrentCache(shapes=((),), dtypes=("float32",)), r"not the shape \(\)"),
    ],
)
def test_a_state_that_cannot_lie_in_a_page_is_refused(spec, said):
    with pytest.raises(ValueError, match=said):
        PagedState("mixer", spec, ring=1)


def test_a_state_without_pages_says_so():
    with pytest.raises(RuntimeError, match=r"mixer: a state was used before"):
        PagedState("mixer", SPEC, ring=1).of(None)
