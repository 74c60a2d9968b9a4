"""Verification on its own: logits and drafts in, tokens of the target's distribution out."""

import pytest
import torch

from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.steps import RowInit, RowSampling, StepPlan
from vllm_core.ops.sampler import ReferenceSampler
from vllm_core.runner.inputs import prepare
from vllm_core.runner.rows import Rows
from vllm_core.runner.verify import advance, verify, write_drafts

from .statistics import agrees

CPU = torch.device("cpu")
V, K, N = 5, 2, 8000
P = torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1], [0.05, 0.05, 0.2, 0.3, 0.4]])
Q = torch.tensor([[0.3, 0.3, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6]])


def step(drafts: Drafts, p: torch.Tensor, temperature: float = 1.0):
    """One step of len(ids) rows in which position j of every row has probabilities p[:, j]."""
    count = len(drafts.ids)
    rows = Rows(count, 8, K, [4], CPU)
    init = [RowInit(i, [1, 2], 1, [[]], RowSampling(temperature=temperature, seed=i)) for i in range(count)]
    plan = StepPlan(
        1, init, [], [], list(range(count)), [1 + K] * count, [K] * count, [True] * count, [1 + 1 + K] * count
    )
    rows.apply(plan)
    write_drafts(rows, torch.arange(count), drafts, V)
    inputs = prepare(plan, rows)
    emitted = verify(p.log().reshape(-1, V), inputs, rows, ReferenceSampler())
    advance(rows, inputs, emitted, torch.empty(len(plan.rows), 1 + rows.num_drafts, dtype=torch.int32))
    return rows, emitted


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_each_row_is_verified_against_its_own_probabilities(shift):
    """Two kinds of rows: the second's vocabulary is the first's, rotated."""
    kind = torch.arange(N) % 2 * shift
    rotated = (torch.arange(V) - kind[:, None]) % V
    p = P[None].expand(N, -1, -1).gather(2, rotated[:, None].expand(-1, K + 1, -1))
    q = Q[None].expand(N, -1, -1).gather(2, rotated[:, None].expand(-1, K, -1))
    ids = torch.multinomial(q.reshape(-1, V), 1, generator=torch.Generator().manual_seed(1)).view(N, K)
    _, emitted = step(Drafts(ids=ids.int(), probs=q), p)
    for which in (0, 1):
        mine = emitted.token_ids[which::2]
        rotate = which * shift
        for j in range(K + 1):
            there = mine[:, j][mine[:, j] >= 0]
            assert agrees((there - rotate) % V, P[j])
    overlap = torch.minimum(P[:K], Q).sum(1)  # the chance that a draft stands
    for j, expected in ((1, overlap[0]), (2, overlap[0] * overlap[1])):
        assert abs((emitted.accepted >= j).float().mean() - expected) < 4 * (0.25 / N) ** 0.5


def test_certain_drafts_keep_the_distribution_and_stand_as_often_as_the_target_draws_them():
    ids = torch.full((N, K), 3, dtype=torch.int32)
    _, emitted = step(Drafts(ids=ids), P[None].expand(N, -1, -1))
    for j in range(K + 1):
        there = emitted.token_ids[:, j]
        assert agrees(there[there >= 0], P[j])
    assert abs((emitted.accepted >= 1).float().mean() - P[0, 3]) < 4 * (0.25 / N) ** 0.5


def test_a_row_without_a_guess_draws_what_plain_decoding_draws():
    none = torch.full((N, K), -1, dtype=torch.int32)
    p = P[None].expand(N, -1, -1)
    _, certain = step(Drafts(ids=none), p)
    _, drawn = step(Drafts(ids=none, probs=torch.zeros(N, K, V)), p)
    assert torch.equal(certain.token_ids, drawn.token_ids)
    assert not certain.accepted.any()


def test_drafts_from_the_targets_own_probabilities_all_stand():
    ids = torch.multinomial(P[:K], N, replacement=True, generator=torch.Generator().manual_seed(1)).T
    _, emitted = step(Drafts(ids=ids.int(), probs=P[:K].expand(N, -1, -1)), P[None].expand(N, -1, -1))
    assert (emitted.accepted == K).float().mean() > 0.999  # but for rounding of equal probabilities


def test_rows_move_on_by_what_was_emitted():
    ids = torch.tensor([[3, 4], [3, 0], [0, 4]], dtype=torch.int32)
    p = torch.eye(V)[torch.tensor([3, 4, 1])][None].expand(3, -1, -1)
    rows, emitted = step(Drafts(ids=ids), p, temperature=0.0)
    assert emitted.token_ids.tolist() == [[3, 4, 1], [3, 4, -1], [3, -1, -1]]
    assert rows.num_computed.tolist() == [4, 3, 2, 0]
    assert rows.num_tokens.tolist() == [5, 4, 3, 0]
    assert rows.token_ids[:3, :5].tolist() == [[1, 2, 3, 4, 1], [1, 2, 3, 4, -1], [1, 2, 3, -1, -1]]


def test_probabilities_that_do_not_belong_to_the_drafts_cannot_leave_a_row_without_a_token():
    claimed = torch.eye(V)[torch.tensor([3, 3])][None]
    p = torch.eye(V)[torch.tensor([3, 4, 1])][None]
    _, emitted = step(Drafts(ids=torch.tensor([[0, 0]], dtype=torch.int32), probs=claimed), p, temperature=0.0)
    assert emitted.token_ids.tolist() == [[3, -1, -1]]
