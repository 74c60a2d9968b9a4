"""From logits to tokens: greedy, temperature, top-k, top-p, and one number of noise a token."""

from __future__ import annotations

import attrs
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vllm_core.runner.rows import Rows
from vllm_core.runner.truncation import top_k_threshold, top_p_threshold

BLOCK = 128
"""Tokens a block of the two-level search for the drawn token."""


@attrs.frozen(kw_only=True)
class Needs:
    """What any row of a batch asks for. Known to the host: work nobody asks for is not done."""

    greedy: bool
    random: bool
    largest_top_k: int  # 0: nobody uses top-k
    top_p: bool

    @classmethod
    def of(cls, rows: Rows, which: np.ndarray) -> Needs:
        """``which``: int64 [N] rows, on the host."""
        greedy = rows.host_greedy[which]
        random = which[~greedy]
        return cls(
            greedy=bool(greedy.any()),
            random=len(random) > 0,
            largest_top_k=int(rows.host_top_k[random].max(initial=0)),
            top_p=bool(rows.host_top_p[random].any()),
        )


@attrs.frozen(kw_only=True)
class Sampling:
    """The rows' sampling parameters, one entry a logits row."""

    temperature: Tensor  # float32 [M]; 0: greedy
    top_k: Tensor  # int64 [M]; 0: all
    top_p: Tensor  # float32 [M]
    needs: Needs

    @classmethod
    def of(cls, rows: Rows, which: Tensor, needs: Needs) -> Sampling:
        """``which``: int64 [M] rows, on the device."""
        parts = {name: getattr(rows, name).index_select(0, which) for name in ("temperature", "top_k", "top_p")}
        return cls(**parts, needs=needs)


def sample(logits: Tensor, sampling: Sampling, noise: Tensor) -> Tensor:
    """A token for each row of logits [M, V], int64 [M]. ``noise``: float64 [M] in [0, 1).

    A row's token depends on its own logits, parameters and noise only.
    """
    needs = sampling.needs
    if not needs.random:
        return logits.argmax(-1)
    drawn = draw(weights(logits, sampling), noise)
    if not needs.greedy:
        return drawn
    return torch.where(sampling.temperature == 0, logits.argmax(-1), drawn)


def weights(logits: Tensor, sampling: Sampling) -> Tensor:
    """float32 [M, V], proportional to each token's probability; the largest of a row is 1.

    Order: temperature, then top-k, then top-p of what top-k kept. Rows of temperature 0 are
    treated as if it were 1: their weights are of no use.
    """
    needs = sampling.needs
    temperature = torch.where(sampling.temperature == 0, 1.0, sampling.temperature)[:, None]
    # The largest score becomes 0 before it is divided, so that a tiny temperature cannot overflow.
    scores = logits.float()
    scores = (scores - scores.amax(-1, keepdim=True)).div_(temperature)
    if needs.largest_top_k:
        threshold = top_k_threshold(scores, sampling.top_k, needs.largest_top_k)
        scores = scores.masked_fill_(scores < threshold, float("-inf"))
    weight = scores.exp_()
    if needs.top_p:
        weight = weight.masked_fill_(weight < top_p_threshold(weight, sampling.top_p), 0)
    return weight


def draw(weight: Tensor, noise: Tensor) -> Tensor:
    """The token where the running sum of weights [M, V] passes noise [M] * total; int64 [M].

    Tokens of weight 0 are never drawn. Sums of blocks find the block, sums inside it the token:
    running sums of a whole vocabulary would cost more memory traffic than the softmax.
    """
    rows, vocab = weight.shape
    blocks = F.pad(weight, (0, -vocab % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(-1).double()
    ends = sums.cumsum(-1)
    target = noise[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp_max_(ends.shape[-1] - 1)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    # Where in its block the target lies, 0 to 1. The clamp keeps a rounding error from pointing
    # past the block's last token of weight above 0.
    share = (target - ends.gather(1, block)) / sums.gather(1, block) + 1
    place = torch.searchsorted(inside, share.clamp_(0, 1 - 2.0**-48) * inside[:, -1:], right=True)
    return (block * BLOCK + place)[:, 0].clamp_max_(vocab - 1)
