"""The core's sampler: greedy, temperature, min-p, top-k, top-p, and one number of noise a token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vllm_core.interfaces.queries import SamplerQuery
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.ops.truncation import top_k_threshold, top_p_threshold

__all__ = ["ReferenceSampler"]

BLOCK = 128
"""Tokens a block of the two-level search for the drawn token."""


class ReferenceSampler:
    """`interfaces.sampler.Sampler`. A line's token depends on its own logits, parameters and noise only."""

    def __init__(self, query: SamplerQuery | None = None) -> None: ...

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        if not params.any_random:
            return _likeliest(logits)
        drawn = draw(weights(logits, params), params.noise)
        if not params.any_greedy:
            return drawn
        return torch.where(params.temperature == 0, _likeliest(logits), drawn)

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        weight = weights(logits, params)
        p = weight / weight.sum(-1, keepdim=True)
        if not params.any_greedy:
            return p
        greedy = torch.zeros_like(p).scatter_(1, _likeliest(logits)[:, None], 1.0)
        return torch.where((params.temperature == 0)[:, None], greedy, p)


def weights(logits: Tensor, params: SamplingTensors) -> Tensor:
    """float32 [M, V], proportional to each token's probability; the largest of a row is 1.

    Order: temperature, min-p and top-k, then top-p of what they kept. Rows of temperature 0 are
    treated as if it were 1: their weights are of no use.
    """
    temperature = torch.where(params.temperature == 0, 1.0, params.temperature)[:, None]
    # The largest score becomes 0 before it is divided, so that a tiny temperature cannot overflow.
    scores = logits.float()
    scores = (scores - scores.amax(-1, keepdim=True)).div_(temperature)
    if params.largest_top_k:
        threshold = top_k_threshold(scores, params.top_k, params.largest_top_k)
        scores = scores.masked_fill_(scores < threshold, float("-inf"))
    weight = scores.exp_()
    if params.any_min_p:
        # The likeliest token weighs 1 and stays, so it does not matter that top-k came first.
        weight = weight.masked_fill_(weight < params.min_p[:, None], 0)
    if params.any_top_p:
        weight = weight.masked_fill_(weight < top_p_threshold(weight, params.top_p), 0)
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


def _likeliest(logits: Tensor) -> Tensor:
    """int64 [M]. On the CPU torch takes five times as long for bfloat16 as for float32."""
    return (logits.float() if logits.device.type == "cpu" else logits).argmax(-1)
