"""top-k and top-p: which tokens stay in the draw. Thresholds instead of sorted vocabularies.

Both keep every token at or above a threshold, so tokens that tie at the border stay together
(a sort would keep some of them, by its own order) and at least one token always stays.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHORT_LIST = 128
"""On the CPU the nucleus is first looked for among so many tokens."""

_ONE_BITS = 30
"""Floats from 0 to 1 have bit patterns below 2 ** 30, ordered as the floats are."""


def top_k_threshold(scores: Tensor, top_k: Tensor, largest: int) -> Tensor:
    """[M, 1]: the top_k-th largest of scores [M, V]; -inf where top_k [M] is 0 (all stay).

    ``largest`` is a bound of ``top_k`` that the host knows.
    """
    values = scores.topk(min(largest, scores.shape[-1])).values
    last = values.gather(1, (top_k - 1).clamp(0, values.shape[-1] - 1)[:, None])
    return last.masked_fill_((top_k <= 0)[:, None], float("-inf"))


def top_p_threshold(weights: Tensor, top_p: Tensor) -> Tensor:
    """[M, 1]: tokens of at least this weight are the nucleus: fewest with a share of top_p or more.

    weights   float32 [M, V], each 0 to 1, the largest of a row 1; a token's share is its
              weight over the row's sum. Tokens left out by top-k have weight 0, so the nucleus
              is taken of what top-k kept.
    top_p     float32 [M]; 1 or more keeps all.

    A token stays if the shares of the larger ones sum to less than top_p, which is what sorting
    and cutting (arXiv 1904.09751) does.
    """
    target = (weights.sum(-1) * top_p).clamp_min_(torch.finfo(torch.float32).tiny)
    all_stay = top_p >= 1
    if weights.device.type != "cpu":
        return torch.where(all_stay, 0.0, _bisect(weights, target))[:, None]
    # Reading values is free on the CPU and a wait for the device elsewhere. Each row's threshold
    # comes from its own numbers, so it does not depend on what another row needs.
    short = weights.topk(min(SHORT_LIST, weights.shape[-1])).values
    shares = short.cumsum(-1)
    first = (shares < target[:, None]).sum(-1, keepdim=True).clamp_max_(short.shape[-1] - 1)
    threshold = short.gather(1, first)[:, 0].masked_fill_(all_stay, 0)
    for i in ((shares[:, -1] < target) & ~all_stay).nonzero()[:, 0].tolist():
        threshold[i] = _bisect(weights[i : i + 1], target[i : i + 1])[0]  # one row at a time stays in cache
    return threshold[:, None]


def _bisect(weights: Tensor, target: Tensor) -> Tensor:
    """The largest float t for which the weights of at least t sum to target [M] or more."""
    bits = torch.zeros(len(weights), dtype=torch.int32, device=weights.device)
    for bit in reversed(range(_ONE_BITS)):
        trial = bits | (1 << bit)
        threshold = trial.view(torch.float32)[:, None]
        mass = (weights * (weights >= threshold)).sum(-1)
        bits = torch.where(mass >= target, trial, bits)
    return bits.view(torch.float32)
