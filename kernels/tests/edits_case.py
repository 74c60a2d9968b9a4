"""Logits, and rows that ask for edits of them, on any device and of any size: the arguments of ``edit_logits``."""

from __future__ import annotations

from typing import Any

import torch

ROWS, LINES, CHOSEN, ROOM = 9, 12, 10, 60


def case(vocab: int, dtype: torch.dtype, seed: int, length: int = 3) -> tuple[torch.Tensor, dict[str, Any]]:
    """Few different tokens, so that words are completed and stops banned; some lines have hardly any token left."""
    torch.manual_seed(seed)
    logits = (torch.randn(LINES, vocab) * 3).to(dtype)
    logits[:, ::3] = float("-inf")
    logits[:6, min(vocab - 1, 8) :] = float("-inf")  # what is left lies among the first tokens, and much is forbidden
    logits[3, vocab // 2 :] = float("nan")
    keep = torch.rand(ROWS, vocab) < 0.3
    keep[:3] = False  # row 0 keeps nothing, rows 1 and 2 one token, at either end
    keep[1, vocab - 1] = keep[2, 1] = True
    restricts, rows = torch.rand(ROWS) < 0.6, torch.randint(0, ROWS, (CHOSEN,))
    restricts[1:3], rows[1], rows[-1] = True, 2, 1
    words = torch.randint(0, 5, (ROWS, 32, length))
    words[:, ::2, : length // 2] = -1
    words[:, ::5] = -1
    words[:, 3, -1] = vocab - 1
    words = torch.where(words < 0, -1, words % vocab)
    stops = torch.randint(-1, min(vocab, 9), (ROWS, 8))
    bias_ids = torch.full((ROWS, 8), -1)
    for row in range(1, ROWS):
        some = torch.randperm(vocab)[: min(row, vocab)]
        bias_ids[row, : len(some)] = some
    return logits, {
        "lines": torch.randperm(LINES)[:CHOSEN].sort().values,
        "rows": rows,
        "ends": torch.randint(1, ROOM + 1, (CHOSEN,)),
        "tokens": torch.randint(-1, 5, (ROWS, ROOM + 4), dtype=torch.int32)[:, :ROOM],
        "prompt_len": torch.randint(1, ROOM, (ROWS,)),
        "restricts": restricts,
        "keep": keep,
        "words": words.flatten(1)[:, : 32 * length - 1].contiguous(),  # what is left over is no word
        "word_length": length,
        "min_end": torch.randint(0, ROOM, (ROWS,)),
        "stops": stops,
        "bias_ids": bias_ids,
        "bias": torch.randn(ROWS, 8, dtype=torch.float64) * 10,
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, but for what NaN is."""
    number = torch.int32 if a.dtype == torch.float32 else torch.int16
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(
        a.masked_fill(a.isnan(), 0).view(number), b.masked_fill(b.isnan(), 0).view(number)
    )
