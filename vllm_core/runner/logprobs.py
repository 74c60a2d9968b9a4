"""Log-probabilities of tokens: of the one that came, its rank, and of the likeliest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core import ops

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


def token_logprobs(
    logits: Tensor, tokens: Tensor, k: int, score: Callable[..., Any] = ops.token_logprobs
) -> TokenLogprobs:
    """Natural logarithms of softmax(logits [M, V]) for ``tokens`` int64 [M] and the ``k`` likeliest.

    Where no token came (-1) column 0 keeps the -1 and means nothing. No host synchronisation.
    ``score``: an implementation of the op ``token_logprobs``.
    """
    size = lines_at_a_time(logits.shape[1])
    return TokenLogprobs.join(
        [_of(part, ids, k, score) for part, ids in zip(logits.split(size), tokens.split(size), strict=True)]
    )


def _of(logits: Tensor, tokens: Tensor, k: int, score: Callable[..., Any]) -> TokenLogprobs:
    if logits.device.type == "cpu":  # where two passes over bfloat16 cost more than one that converts
        logits = logits.float()
    own, ranks, total = score(logits, tokens)
    came, own = tokens[:, None], own[:, None]
    if not k:
        return TokenLogprobs(came.int(), own, ranks)
    values, ids = logits.topk(min(k, logits.shape[1]))
    return TokenLogprobs(torch.cat([came, ids], 1).int(), torch.cat([own, values.float() - total[:, None]], 1), ranks)
