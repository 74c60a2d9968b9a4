"""Penalties and scores of tokens against their definitions, written out one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_core import ops


def penalized(line, sequence, prompt_len, repetition, presence, frequency):
    """One line of float32 logits; ``sequence``: ids, -1 where there is no guess."""
    line = line.clone()
    for token in {t for t in sequence if t >= 0}:
        x = line[token]
        x = x / repetition if x > 0 else x * repetition
        count = sequence[prompt_len:].count(token)
        x = x - frequency * float(count)
        line[token] = x - presence * float(count > 0)
    return line


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("counting", [True, False])
def test_penalties_change_the_tokens_that_are_there(seed, counting):
    make = torch.Generator().manual_seed(seed)
    lines, chosen, rows, room, vocab = 6, 4, 5, 30, 12
    logits = torch.randn(lines, vocab, generator=make)
    logits[0, 3], logits[1, 4] = 0.0, float("-inf")
    tokens = torch.randint(-1, vocab, (rows, room + 7), generator=make, dtype=torch.int32)[:, :room]
    tokens[:, 0] = 5
    at = torch.randperm(lines, generator=make)[:chosen]
    which = torch.randint(0, rows, (chosen,), generator=make)
    ends = torch.randint(1, room + 1, (chosen,), generator=make)
    prompt_len = torch.randint(1, room, (rows,), generator=make)
    repetition = torch.rand(rows, generator=make) + 0.5
    presence, frequency = (torch.randn(rows, generator=make) * counting for _ in range(2))
    want = logits.clone()
    for line, row, end in zip(at.tolist(), which.tolist(), ends.tolist(), strict=True):
        sequence = tokens[row, :end].tolist()
        want[line] = penalized(
            logits[line], sequence, int(prompt_len[row]), repetition[row], presence[row], frequency[row]
        )
    ops.penalize(logits, at, which, ends, tokens, prompt_len, repetition, presence, frequency, counting)
    assert torch.equal(logits, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_logarithm_and_rank(dtype):
    logits = (torch.randn(20, 300) * 3).to(dtype)
    logits[3, :200] = float("-inf")
    tokens = torch.randint(0, 300, (20,))
    tokens[3], tokens[4] = 7, -1
    logprobs, ranks, sums = ops.token_logprobs(logits, tokens)
    assert (logprobs.dtype, ranks.dtype, sums.dtype) == (torch.float32, torch.int32, torch.float32)
    for line, token in enumerate(tokens.clamp_min(0).tolist()):
        scores = logits[line].double()
        total = math.log(scores.exp().sum())
        assert sums[line].item() == pytest.approx(total, rel=1e-6)
        assert logprobs[line].item() == pytest.approx(scores[token].item() - total, rel=1e-5)
        assert ranks[line] == 1 + (scores > scores[token]).sum()


@pytest.mark.parametrize("vocab", [1, 7, 8, 31, 32, 33, 257])
def test_tokens_whose_bit_is_0_have_no_chance_and_others_keep_their_logit(vocab):
    make = torch.Generator().manual_seed(vocab)
    logits = torch.randn(6, vocab, generator=make)
    logits[5], logits[0, 0] = float("inf"), -0.0
    masks = torch.randint(-(2**31), 2**31, (4, 3 + vocab // 32), generator=make, dtype=torch.int32)
    masks[2], masks[3] = -1, 0
    lines, before = [5, 0, 3, 2], logits.clone()
    ops.apply_token_bitmask(logits, torch.tensor(lines), masks)
    for line in range(6):
        for token in range(vocab):
            word = int(masks[lines.index(line), token // 32]) if line in lines else -1
            expected = before[line, token] if word >> (token % 32) & 1 else torch.tensor(float("-inf"))
            assert logits[line, token].view(torch.int32) == expected.view(torch.int32), (line, token)
