"""What requests forbid, and what they favour: allowed tokens, bad words, stops that come too early, bias."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.ops.table import op

GONE = float("-inf")


@op
def edit_logits(
    logits: Tensor,
    lines: Tensor,
    rows: Tensor,
    ends: Tensor,
    tokens: Tensor,
    prompt_len: Tensor,
    restricts: Tensor | None = None,
    keep: Tensor | None = None,
    words: Tensor | None = None,
    word_length: int = 1,
    min_end: Tensor | None = None,
    stops: Tensor | None = None,
    bias_ids: Tensor | None = None,
    bias: Tensor | None = None,
) -> None:
    """Change logits in place by what their rows ask for, from tables that hold all R rows. In this order:

    1. In rows that ``restricts``, tokens that are not in ``keep`` become -inf.
    2. The last token of each bad word that it would complete becomes -inf.
    3. While ``ends`` < ``min_end``, stops become -inf.
    4. Each bias is added to its token's logit, in float32, rounded once to the dtype of logits.
    A step of the first three that would leave a line no token above -inf changes nothing in that line.

    logits       [M, V] float32, bfloat16 or float16, contiguous.
    lines        int64 [A], which of the M lines; ascending, all different.
    rows         int64 [A], of each line.
    ends         int64 [A], tokens of the row before the one that the line draws, at least 1.
    tokens       int32 [R, L], rows at any stride; -1 stands for no guess. L is at least the largest of ``ends``.
    prompt_len   int64 [R]: outputs begin there. What lies before completes no bad word.
    restricts    bool [R], with keep bool [R, V], contiguous; None: nobody does.
    words        int64 [R, W], contiguous: W // n bad words of n = ``word_length`` tokens, one after the other; shorter
                 ones begin with -1. Words of -1 alone, and what is left over behind them, are none.
    min_end      int64 [R], with stops int64 [R, E], contiguous, -1 where there is none; None: nobody has any.
    bias_ids     int64 [R, B], with bias float64 [R, B], contiguous: a row's ids are all different, then come -1.
    Where W, E or B is 0, it is as if the table were None.
    Query        (nothing).
    """
    if restricts is not None and keep is not None:
        before = _lines(logits, lines)
        out = (~keep).index_select(0, rows) & restricts.index_select(0, rows)[:, None]
        kept = before.masked_fill(out, GONE)
        logits.index_copy_(0, lines, torch.where(_dead(kept), before, kept))
    if words is not None and words.shape[1] >= word_length:
        own = words.index_select(0, rows)
        ids = _completed(own, word_length, ends, tokens.index_select(0, rows), prompt_len.index_select(0, rows))
        _ban(logits, lines, ids)
    if min_end is not None and stops is not None and stops.shape[1]:
        early = ends < min_end.index_select(0, rows)
        _ban(logits, lines, torch.where(early[:, None], stops.index_select(0, rows), -1))
    if bias_ids is not None and bias is not None and bias_ids.shape[1]:
        # Places without a bias repeat the first; a row without any leaves token 0 as it is.
        ids, added = bias_ids.index_select(0, rows), bias.index_select(0, rows).float()
        there = ids >= 0
        ids, added = torch.where(there, ids, ids[:, :1].clamp_min(0)), torch.where(there, added, added[:, :1])
        flat, index = logits.view(-1), (lines[:, None] * logits.shape[1] + ids).view(-1)
        old = flat.index_select(0, index).view_as(ids)
        new = torch.where(there[:, :1], (old.float() + added).to(logits.dtype), old)
        flat.scatter_(0, index, new.view(-1))


def _completed(words: Tensor, n: int, ends: Tensor, tokens: Tensor, prompt_len: Tensor) -> Tensor:
    """int64 [A, words]: the last token of each bad word that it would complete; -1: it would not."""
    words = words[:, : words.shape[1] // n * n].view(len(words), -1, n)  # [A, words, n]
    prefix, last = words[:, :, :-1], words[:, :, -1]
    # The n - 1 tokens before the one that is drawn; those of the prompt match nothing.
    at = ends[:, None] + torch.arange(1 - n, 0, device=ends.device)
    past = tokens.long().gather(1, at.clamp_min(0))
    past = torch.where(at >= prompt_len[:, None], past, -2)
    return torch.where(((prefix == past[:, None]) | (prefix == -1)).all(-1), last, -1)


def _ban(logits: Tensor, at: Tensor, ids: Tensor) -> None:
    """Take tokens ids [A, W] (-1: none) away from lines ``at`` [A], except from lines where none would be left."""
    there = ids >= 0
    first = ids.gather(1, there.long().argmax(1, keepdim=True))  # -1 in lines without any
    index = (at[:, None] * logits.shape[1] + torch.where(there, ids, first).clamp_min(0)).view(-1)
    flat = logits.view(-1)
    before = flat.index_select(0, index).view_as(ids)
    flat.scatter_(0, index, before.masked_fill(first >= 0, GONE).view(-1))
    keep = _dead(_lines(logits, at)) | (first < 0)
    flat.scatter_(0, index, torch.where(keep, before, GONE).view(-1))


def _lines(logits: Tensor, at: Tensor) -> Tensor:
    """Lines ``at``; no copy if it is all of them."""
    return logits if len(at) == len(logits) else logits.index_select(0, at)


def _dead(logits: Tensor) -> Tensor:
    """bool [M, 1]: no token is left."""
    return logits.amax(-1, keepdim=True) == GONE
