"""What is done to logits besides drawing: penalties for tokens that are there already, and what tokens score."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.ops.table import op


@op
def penalize(
    logits: Tensor,
    lines: Tensor,
    rows: Tensor,
    ends: Tensor,
    tokens: Tensor,
    prompt_len: Tensor,
    repetition: Tensor,
    presence: Tensor,
    frequency: Tensor,
    counting: bool = True,
) -> None:
    """Change, in place, the logits of tokens that are already in a line's sequence.

    logits                float32 [M, V], contiguous.
    lines                 int64 [A], which of the M lines; all different.
    rows                  int64 [A], of each line.
    ends                  int64 [A], tokens of the row before the one that the line draws, at least 1.
    tokens                int32 [R, L], rows at any stride; -1 stands for no guess.
    prompt_len            int64 [R]: outputs begin there.
    repetition, presence, frequency   float32 [R].
    counting              False: presence and frequency of these rows are 0.
    For a token among the first ``ends``: divided by repetition if above 0, else multiplied by it (arXiv 1909.05858).
    Then, for one that is there n > 0 times from prompt_len on: less n * frequency, less presence, in this order; each
    product and difference is rounded.
    Query                 (nothing).
    """
    vocab = logits.shape[1]
    ids = tokens.index_select(0, rows).long()  # [A, L]
    column = torch.arange(ids.shape[1], device=ids.device)
    known = (column < ends[:, None]) & (ids >= 0)
    ids = torch.where(known, ids, ids[:, :1])  # the first is always there
    index = (lines[:, None] * vocab + ids).view(-1)
    flat = logits.view(-1)
    old = flat.index_select(0, index).view_as(ids)
    factor = repetition.index_select(0, rows)[:, None]
    new = torch.where(old > 0, old / factor, old * factor)
    if counting:
        output = known & (column >= prompt_len.index_select(0, rows)[:, None])
        outputs = torch.where(output, ids, vocab).sort(-1).values
        upper, lower = (torch.searchsorted(outputs, ids, right=right) for right in (True, False))
        counts = (upper - lower).float()
        new -= frequency.index_select(0, rows)[:, None] * counts
        new -= presence.index_select(0, rows)[:, None] * (counts > 0)
    # A token that is there twice is written twice, with one value.
    flat.scatter_(0, index, new.view(-1))


@op
def apply_token_bitmask(logits: Tensor, lines: Tensor, masks: Tensor) -> None:
    """Set, in place, the logits of tokens to -inf whose bit is 0.

    logits     float32 [M, V], contiguous.
    lines      int64 [A], which of the M lines; all different.
    masks      int32 [A, W] with W >= ceil(V / 32): token i of line lines[a] stays if bit i % 32 of masks[a, i // 32]
               is 1. Further words are not read.
    Query      (nothing).
    """
    vocab = logits.shape[1]
    # The most that eight tokens may have, by the byte of their bits: a fifth of the time that single bits take.
    bits = torch.arange(256, device=masks.device)[:, None] >> torch.arange(8, device=masks.device) & 1
    table = torch.where(bits == 1, float("inf"), float("-inf"))
    taken = masks[:, : -(-vocab // 32)].contiguous().view(torch.uint8).view(-1).int()
    most = table.index_select(0, taken).view(len(masks), -1)[:, :vocab]
    logits.index_copy_(0, lines, torch.minimum(logits.index_select(0, lines), most))


@op
def token_logprobs(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Natural logarithms of softmax(logits) for one token a line, and where it ranks.

    logits     [M, V], any float dtype.
    tokens     int64 [M]; a negative one counts as token 0.
    Returns    float32 [M]; int32 [M], 1 + the number of larger logits; and float32 [M], log(sum(exp(logits))), which a
               logit is taken less of for its own logarithm.
    Query      (nothing).
    """
    scores = logits.float()
    own = scores.gather(1, tokens.clamp_min(0)[:, None])
    ranks = (scores > own).sum(-1) + 1
    total = scores.logsumexp(-1)
    return own[:, 0] - total, ranks.int(), total
