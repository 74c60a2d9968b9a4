"""Log-probabilities of tokens: of the one that came, its rank, and of the likeliest."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

SLICE = 1 << 23
"""Logits handled at a time: a long prompt needs no matrix of all its positions."""


@attrs.frozen
class TokenLogprobs:
    """M lines. Column 0 is the token that came, columns 1 to k the likeliest, in falling order."""

    token_ids: Tensor  # int32 [M, 1 + k]
    logprobs: Tensor  # float32 [M, 1 + k]
    ranks: Tensor  # int32 [M], of the token that came; 1 is the likeliest

    @classmethod
    def join(cls, parts: list[TokenLogprobs]) -> TokenLogprobs:
        if len(parts) == 1:
            return parts[0]
        ids, values, ranks = ([getattr(p, name) for p in parts] for name in ("token_ids", "logprobs", "ranks"))
        return cls(torch.cat(ids), torch.cat(values), torch.cat(ranks))


def lines_at_a_time(vocab: int) -> int:
    return max(1, SLICE // vocab)


def token_logprobs(logits: Tensor, tokens: Tensor, k: int) -> TokenLogprobs:
    """Natural logarithms of softmax(logits [M, V]) for ``tokens`` int64 [M] and the ``k`` likeliest.

    Where no token came (-1) column 0 keeps the -1 and means nothing. No host synchronisation.
    """
    size = lines_at_a_time(logits.shape[1])
    return TokenLogprobs.join(
        [_of(part, ids, k) for part, ids in zip(logits.split(size), tokens.split(size), strict=True)]
    )


def _of(logits: Tensor, tokens: Tensor, k: int) -> TokenLogprobs:
    scores = logits.float()
    came = tokens[:, None]
    own = scores.gather(1, came.clamp_min(0))
    ranks = (scores > own).sum(-1) + 1
    total = scores.logsumexp(-1, keepdim=True)
    values, ids = scores.topk(min(k, scores.shape[1])) if k else (own[:, :0], came[:, :0])
    return TokenLogprobs(torch.cat([came, ids], 1).int(), torch.cat([own, values], 1) - total, ranks.int())
