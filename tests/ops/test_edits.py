"""Forbidden and favoured tokens against their definition, written out one line and one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_core import ops

ROWS, ROOM, LINES, N = 5, 12, 6, 3


def edited(line: list[float], asked: dict, output: list[int], end: int) -> list[float]:
    """A line of logits, float32 numbers; ``output``: tokens before the one that is drawn, the prompt's left out."""
    bad = {last for *prefix, last in asked["words"] if not prefix or output[-len(prefix) :] == prefix}
    allowed = set(range(len(line))) if asked["allowed"] is None else asked["allowed"]
    for gone in (set(range(len(line))) - allowed, bad, asked["stops"] if end < asked["min_end"] else set()):
        left = [-math.inf if token in gone else x for token, x in enumerate(line)]
        if any(x != -math.inf for x in left):
            line = left
    return [x + asked["bias"].get(token, 0.0) for token, x in enumerate(line)]


def case(seed: int, vocab: int, dtype: torch.dtype):
    """(logits, arguments of the op, what each row asks for)"""
    make = torch.Generator().manual_seed(seed)

    def pick(most: int, below: int = vocab) -> list[int]:
        return torch.randperm(below, generator=make)[: int(torch.randint(0, most + 1, (), generator=make))].tolist()

    def one(below: int) -> int:
        return int(torch.randint(0, below, (), generator=make))

    asked = [
        {
            "allowed": set(pick(6)) if one(2) else None,
            # Words of tokens that outputs have; now and then one twice.
            "words": [[one(3) for _ in range(one(N))] + [one(vocab)] for _ in range(one(6))] * (1 + one(2)),
            "stops": set(pick(3)),
            "min_end": one(ROOM),
            "bias": {token: one(100) / 8 - 6 for token in pick(4)},
        }
        for _ in range(ROWS)
    ]
    tokens = torch.randint(-1, 3, (ROWS, ROOM + 2), generator=make, dtype=torch.int32)[:, :ROOM]
    logits = (torch.randn(LINES, vocab, generator=make) * 3).to(dtype)
    logits[torch.rand(LINES, vocab, generator=make) < 0.3] = -math.inf

    def table(lists: list[list[float]], width: int, pad: float, of: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor([[*entry, *[pad] * (width - len(entry))] for entry in lists], dtype=of)

    words = [[t for word in a["words"] for t in [-1] * (N - len(word)) + word] for a in asked]
    keep = torch.zeros(ROWS, vocab, dtype=torch.bool)
    for row, a in enumerate(asked):
        keep[row, list(a["allowed"] or ())] = True
    arguments = {
        "lines": torch.randperm(LINES, generator=make)[: 1 + one(LINES)].sort().values,
        "tokens": tokens,
        "prompt_len": torch.randint(1, ROOM, (ROWS,), generator=make),
        "restricts": torch.tensor([a["allowed"] is not None for a in asked]),
        "keep": keep,
        "words": table(words, 32, -1),
        "word_length": N,
        "min_end": torch.tensor([a["min_end"] for a in asked]),
        "stops": table([list(a["stops"]) for a in asked], 4, -1),
        "bias_ids": table([list(a["bias"]) for a in asked], 4, -1),
        "bias": table([list(a["bias"].values()) for a in asked], 4, 0.0, torch.float64),
    }
    chosen = len(arguments["lines"])
    arguments["rows"] = torch.randint(0, ROWS, (chosen,), generator=make)
    arguments["ends"] = torch.randint(1, ROOM + 1, (chosen,), generator=make)
    return logits, arguments, asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab", [4, 12])
@pytest.mark.parametrize("seed", range(40))
def test_each_line_is_what_its_row_asks_for(seed, vocab, dtype):
    logits, arguments, asked = case(seed, vocab, dtype)
    want = logits.clone()
    chosen = [arguments[name].tolist() for name in ("lines", "rows", "ends")]
    for line, row, end in zip(*chosen, strict=True):
        output = arguments["tokens"][row, int(arguments["prompt_len"][row]) : end].tolist()
        want[line] = torch.tensor(edited(logits[line].tolist(), asked[row], output, end)).to(dtype)
    ops.edit_logits(logits, **arguments)
    assert torch.equal(logits, want)


def test_tables_that_nobody_needs_may_be_left_out_or_empty():
    logits, arguments, _ = case(0, 12, torch.float32)
    needed = {name: arguments[name] for name in ("lines", "rows", "ends", "tokens", "prompt_len")}
    empty = torch.empty(ROWS, 0, dtype=torch.int64)
    nothing = {"words": empty, "word_length": 3, "min_end": arguments["min_end"], "stops": empty}
    kept = logits.clone()
    ops.edit_logits(logits, **needed)
    ops.edit_logits(logits, **needed, **nothing, bias_ids=empty, bias=empty.double())
    assert torch.equal(logits, kept)
