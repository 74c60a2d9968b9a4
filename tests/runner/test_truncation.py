"""top-k and top-p thresholds against sorting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core.ops import truncation
from vllm_core.ops.truncation import top_k_threshold, top_p_threshold


def nucleus_by_sorting(weights, top_p):
    """Tokens whose larger ones sum to less than top_p of the whole."""
    share, order = (weights.double() / weights.double().sum()).sort(descending=True)
    before = share.cumsum(0) - share
    kept = torch.zeros(len(weights), dtype=torch.bool)
    kept[order[before < top_p]] = True
    return kept


@pytest.mark.parametrize("short_list", [1, 8, 64])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.99])
def test_the_nucleus_is_the_one_that_sorting_finds(monkeypatch, short_list, top_p):
    monkeypatch.setattr(truncation, "SHORT_LIST", short_list)
    scores = torch.randn(20, 200, generator=torch.Generator().manual_seed(1)) * 3
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    kept = weights >= top_p_threshold(weights, torch.full((20,), top_p))
    assert torch.equal(kept, torch.stack([nucleus_by_sorting(w, top_p) for w in weights]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=80), st.floats(0.001, 0.999))
def test_both_ways_to_find_the_nucleus_agree_bit_for_bit(numbers, top_p):
    weights = torch.tensor([[*numbers, 64]]) / 64  # exact in float32, and so are all their sums
    target = weights.sum(-1) * torch.tensor([top_p])
    threshold = truncation._bisect(weights, target)
    assert weights[weights >= threshold].sum() >= target
    assert weights[weights > threshold].sum() < target
    assert (weights == threshold).any()
    assert top_p_threshold(weights, torch.tensor([top_p])).item() == threshold.item()


def test_weights_that_differ_in_the_last_bit_are_told_apart():
    weights = 1 - torch.arange(200)[None].float() * 2.0**-24
    assert weights.unique().numel() == 200
    for top_p in (0.7725, 0.2525):  # found by bisection, and in the short list
        kept = weights >= top_p_threshold(weights, torch.tensor([top_p]))
        assert kept[0].nonzero()[:, 0].tolist() == list(range(int(top_p * 200) + 1))


def test_tokens_that_tie_at_the_border_stay_together():
    weights = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.25]])
    assert (weights >= top_p_threshold(weights, torch.tensor([0.5]))).tolist() == [[True, True, True, True, False]]
    assert (weights >= top_k_threshold(weights, torch.tensor([2]), 2)).tolist() == [[True, True, True, True, False]]


def test_the_smallest_top_p_still_keeps_the_likeliest_token():
    weights = torch.tensor([[0.5, 1.0, 0.1]])
    assert (weights >= top_p_threshold(weights, torch.tensor([1e-30]))).tolist() == [[False, True, False]]


def test_rows_that_ask_for_nothing_keep_everything_beside_rows_that_do():
    weights = torch.tensor([[1.0, 0.5, 1e-30, 0.0]] * 2)
    assert (weights >= top_p_threshold(weights, torch.tensor([1.0, 0.5]))).sum(1).tolist() == [4, 1]
    assert (weights >= top_k_threshold(weights, torch.tensor([0, 2]), 2)).sum(1).tolist() == [4, 2]


def test_top_k_beyond_the_vocabulary_keeps_everything():
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    assert (scores >= top_k_threshold(scores, torch.tensor([1000]), 1000)).all()
