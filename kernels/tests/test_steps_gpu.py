"""A step's ops on a GPU against their references, bit for bit, and in a graph that runs again with other numbers."""

from __future__ import annotations

import pytest
import torch

from vllm_core import ops
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def kernel(name: str, **shape):
    from vllm_kernels import steps

    query = OpQuery(op=name, dtype="bfloat16", device=Device("cuda", capability=(9, 0)), shape=shape)
    return getattr(steps, name)(query)


def rand(low: int, high: int, *shape: int, dtype=torch.int64) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=dtype, device="cuda")


def same(got, want):
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def tokens_of(sequences: int, most: int) -> torch.Tensor:
    """starts [S + 1] of sequences with 0 to ``most`` tokens each, at least one in all."""
    counts = rand(0, most + 1, sequences)
    counts[sequences // 2] += 1
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@pytest.mark.parametrize("sequences", [1, 7, 256, 1024, 1500])
@pytest.mark.parametrize("most", [0, 1, 5, 300])
def test_inputs_and_slots(sequences, most):
    rows_in_all, room, blocks, size = 2000, 700, 40, 16
    token_ids = rand(-1, 100_000, rows_in_all, room, dtype=torch.int32)
    computed = rand(0, room - 10, rows_in_all, dtype=torch.int32)
    table = rand(1, 5000, rows_in_all, blocks + 1, dtype=torch.int32)
    table[:, -1] = 0
    rows, starts = rand(0, rows_in_all, sequences), tokens_of(sequences, most)
    arguments = (token_ids, computed, rows, starts, int(starts[-1]))
    got = kernel("step_inputs")(*arguments)
    same(got, ops.step_inputs(*arguments))
    for width in (1, 33, blocks):
        arguments = (table, rows, got[2], got[1], size, width)
        same(kernel("page_slots", block_size=size)(*arguments), ops.page_slots(*arguments))


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_parameters_and_noise(stream):
    rows, lines = 300, 2000
    seeds = rand(-(2**63), 2**63 - 1, rows)
    parameters = [torch.rand(rows, device="cuda") for _ in range(3)]
    arguments = (
        parameters[0],
        rand(0, 99, rows),
        *parameters[1:],
        seeds,
        rand(0, rows, lines),
        rand(0, 1 << 20, lines),
        stream,
    )
    same(kernel("sampling_rows")(*arguments), ops.sampling_rows(*arguments))


@pytest.mark.parametrize("sequences", [1, 5, 256, 1500])
@pytest.mark.parametrize("drafts", [0, 3])
@pytest.mark.parametrize("emits", ["all", torch.bool, torch.int64])
def test_rows_move_on(sequences, drafts, emits):
    rows_in_all, room = 2000, 90
    state = [
        rand(0, 1000, rows_in_all, room, dtype=torch.int32),
        rand(0, room - drafts - 1, rows_in_all, dtype=torch.int32),
        rand(0, 50, rows_in_all, dtype=torch.int32),
    ]
    copy = [t.clone() for t in state]
    lines = sequences - sequences // 3
    arguments = (
        torch.randperm(rows_in_all, device="cuda")[:sequences],
        rand(0, 9, sequences),
        torch.randperm(sequences, device="cuda")[:lines],
        rand(-1, 1000, lines, 1 + drafts),
        rand(0, drafts + 1, lines),
    )
    flags = None if emits == "all" else rand(0, 2, lines).to(emits)
    result = torch.full((sequences, 1 + drafts + 1), 77, dtype=torch.int32, device="cuda")
    want = result.clone()
    kernel("commit_tokens")(*state, *arguments, result, flags)
    ops.commit_tokens(*copy, *arguments, want, flags)
    same([*state, result], [*copy, want])


def test_a_captured_step_runs_again_from_where_the_rows_stand():
    rows_in_all, room, sequences, size = 40, 64, 8, 4
    token_ids = rand(0, 1000, rows_in_all, room, dtype=torch.int32)
    known, computed = rand(5, 20, rows_in_all, dtype=torch.int32), rand(0, 5, rows_in_all, dtype=torch.int32)
    computed.copy_(known - 1)
    table = rand(1, 99, rows_in_all, room // size + 1, dtype=torch.int32)
    rows, starts = torch.arange(sequences, device="cuda"), torch.arange(sequences + 1, device="cuda")
    lines, ones, zeros = rows.clone(), torch.ones_like(rows), torch.zeros_like(rows)
    result = torch.empty(sequences, 1, dtype=torch.int32, device="cuda")
    call = {
        name: kernel(name, **({"block_size": size} if name == "page_slots" else {}))
        for name in ("step_inputs", "page_slots", "commit_tokens")
    }

    def step(ops_of, state, result):
        ids, positions, sequence, _ = ops_of["step_inputs"](state[0], state[2], rows, starts, sequences)
        _, slots = ops_of["page_slots"](table, rows, sequence, positions, size, 3)
        drawn = (ids * 31 + slots) % 1000
        ops_of["commit_tokens"](*state, rows, ones, lines, drawn[:, None], zeros, result, ones)

    state = [token_ids, known, computed]
    plain, want = [t.clone() for t in state], result.clone()
    saved = [t.clone() for t in state]
    step(call, state, result)
    for mine, theirs in zip(state, saved, strict=True):
        mine.copy_(theirs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(call, state, result)
    for mine, theirs in zip(state, saved, strict=True):
        mine.copy_(theirs)
    references = {name: getattr(ops, name) for name in call}
    for i in range(6):
        rows.copy_(torch.randperm(rows_in_all, device="cuda")[:sequences] if i % 2 else rows)
        graph.replay()
        step(references, plain, want)
        same([*state, result], [*plain, want])
