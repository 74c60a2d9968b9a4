"""Penalties, bias, bad words, minimum length, allowed tokens: against a plain float64 version, request by request."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from vllm_core.interfaces.steps import RowInit, RowSampling
from vllm_core.runner.edits import Edits

VOCAB, ROWS, ROOM = 40, 6, 48
CPU = torch.device("cpu")


def plain(logits: list[float], prompt: list[int], output: list[int], s: RowSampling) -> list[float]:
    """What vLLM 0.16 documents, in float64 and one token at a time."""
    x = [float(v) for v in logits]
    bad = {last for *prefix, last in s.bad_words if not prefix or output[-len(prefix) :] == prefix}
    for gone in (
        set(range(len(x))) - set(s.allowed_ids) if s.allowed_ids else set(),
        bad,
        set(s.stop_ids) if len(output) < s.min_tokens else set(),
    ):
        masked = [-math.inf if t in gone else v for t, v in enumerate(x)]
        if max(masked) > -math.inf:  # else nothing could be drawn
            x = masked
    for t, bias in s.logit_bias.items():
        x[t] += bias
    for t in range(len(x)):
        if t in prompt or t in output:
            x[t] = x[t] / s.repetition_penalty if x[t] > 0 else x[t] * s.repetition_penalty
        count = output.count(t)
        x[t] -= s.frequency_penalty * count + (s.presence_penalty if count else 0)
    return x


def request(make: random.Random) -> RowSampling:
    def ids(low: int, high: int) -> list[int]:
        return [make.randrange(VOCAB) for _ in range(make.randint(low, high))]

    def maybe(value):
        return value if make.random() < 0.4 else None

    wanted = {
        "repetition_penalty": maybe(make.choice([0.5, 1.3, 2.0])),
        "presence_penalty": maybe(make.uniform(-2, 2)),
        "frequency_penalty": maybe(make.uniform(-2, 2)),
        "logit_bias": maybe({t: make.uniform(-100, 100) for t in ids(1, 6)}),
        "allowed_ids": maybe(ids(1, 20)),
        "bad_words": maybe([ids(1, 3) for _ in range(make.randint(1, 5))]),
        "min_tokens": maybe(make.randint(1, 8)),
        "stop_ids": ids(1, 3),
    }
    return RowSampling(**{k: v for k, v in wanted.items() if v is not None})


def rows_of(tokens: dict[int, list[int]]) -> torch.Tensor:
    table = torch.randint(0, VOCAB, (ROWS, ROOM), dtype=torch.int32)  # what lies behind the known tokens is anything
    for row, ids in tokens.items():
        table[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
    return table


def init(row: int, prompt: list[int], output: list[int], sampling: RowSampling) -> RowInit:
    return RowInit(
        row=row, token_ids=prompt + output, num_prompt=len(prompt), num_computed=0, pages=[], sampling=sampling
    )


@pytest.mark.parametrize("seed", range(60))
def test_every_mixture_of_requests_gives_the_logits_of_the_plain_version(seed):
    make = random.Random(seed)
    edits = Edits(ROWS, VOCAB, CPU)
    for _ in range(3):  # rows are taken again and again: nothing of the last request may stay
        taken = make.sample(range(ROWS), make.randint(1, ROWS))
        prompts = {row: [make.randrange(VOCAB) for _ in range(make.randint(1, 20))] for row in taken}
        # Few different tokens, so that bad words and counts above one do happen.
        outputs = {row: [make.randrange(6) for _ in range(make.randint(0, 20))] for row in taken}
        wanted = {row: request(make) if make.random() < 0.8 else RowSampling() for row in taken}
        edits.take([init(row, prompts[row], outputs[row], wanted[row]) for row in taken])
        lines = [row for row in taken for _ in range(make.randint(1, 2))]
        logits = torch.randn(len(lines), VOCAB) * 5
        tokens = rows_of({row: prompts[row] + outputs[row] for row in taken})
        # A row's second line draws the token before the last: as if drafts were being verified.
        ends = [len(prompts[r]) + max(0, len(outputs[r]) - lines[:i].count(r)) for i, r in enumerate(lines)]
        got = edits.apply(logits, np.array(lines), torch.tensor(lines), torch.tensor(ends), tokens)
        for i, (row, end) in enumerate(zip(lines, ends, strict=True)):
            known = outputs[row][: end - len(prompts[row])]
            want = torch.tensor(plain(logits[i].tolist(), prompts[row], known, wanted[row]), dtype=torch.float64)
            assert torch.equal(got[i].isinf(), want.isinf()), (row, wanted[row])
            finite = ~want.isinf()
            torch.testing.assert_close(got[i][finite].double(), want[finite], rtol=1e-5, atol=1e-4)


def test_rows_that_ask_for_nothing_get_their_own_logits_back_untouched():
    edits = Edits(ROWS, VOCAB, CPU)
    edits.take([init(0, [1, 2], [], RowSampling()), init(1, [1], [], RowSampling(presence_penalty=1.0))])
    logits = torch.randn(2, VOCAB, dtype=torch.bfloat16)
    assert (
        edits.apply(logits[:1], np.array([0]), torch.tensor([0]), torch.tensor([2]), rows_of({})).data_ptr()
        == logits.data_ptr()
    )
    kept = logits.clone()
    got = edits.apply(logits, np.array([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 1]), rows_of({1: [1]}))
    assert torch.equal(got[0], logits[0].float())
    assert torch.equal(logits, kept)


def test_what_would_leave_no_token_is_left_out_of_that_row_only():
    edits = Edits(ROWS, VOCAB, CPU)
    asked = RowSampling(allowed_ids=[3, 4], bad_words=[[3]], min_tokens=2, stop_ids=[4])
    edits.take([init(0, [1], [], asked), init(1, [1], [], RowSampling(min_tokens=2, stop_ids=[4]))])
    got = edits.apply(torch.zeros(2, VOCAB), np.array([0, 1]), torch.tensor([0, 1]), torch.tensor([1, 1]), rows_of({}))
    assert got[0].isfinite().nonzero().flatten().tolist() == [4]
    assert got[1].isinf().nonzero().flatten().tolist() == [4]


def test_no_guess_counts_as_no_token():
    edits = Edits(ROWS, VOCAB, CPU)
    edits.take([init(0, [1], [2], RowSampling(frequency_penalty=1.0, bad_words=[[3, 4]]))])
    tokens = rows_of({0: [1, 2, 3, -1]})
    got = edits.apply(torch.zeros(1, VOCAB), np.array([0]), torch.tensor([0]), torch.tensor([4]), tokens)
    want = torch.zeros(VOCAB)
    want[[2, 3]] = -1
    assert torch.equal(got[0], want)


def test_a_longer_bad_word_leaves_the_words_of_other_rows_as_they_were():
    edits = Edits(ROWS, VOCAB, CPU)
    edits.take([init(0, [1], [5], RowSampling(bad_words=[[5, 6], [7]]))])
    edits.take([init(1, [1], [5], RowSampling(bad_words=[[9, 9, 9, 9]]))])
    got = edits.apply(torch.zeros(1, VOCAB), np.array([0]), torch.tensor([0]), torch.tensor([2]), rows_of({0: [1, 5]}))
    assert got[0].isinf().nonzero().flatten().tolist() == [6, 7]
