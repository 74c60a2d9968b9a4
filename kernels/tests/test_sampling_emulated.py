"""The sampler's own source without a GPU, on a CPU's fibers: which tokens stay and which is drawn."""

from __future__ import annotations

import shutil

import pytest
import torch
from vllm_kernels import edits, logprobs, sampling

from kernels.tests.edits_case import case, same
from kernels.tests.fibers_kernel import FibersKernel
from vllm_core import ops
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.ops.noise import uniform
from vllm_core.ops.sampler import ReferenceSampler

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
LINES = 14


@pytest.fixture(autouse=True)
def on_fibers(monkeypatch):
    for module in (sampling, edits, logprobs):
        monkeypatch.setattr(module, "Kernel", FibersKernel)
    for module in (sampling, logprobs):
        monkeypatch.setattr(module, "counters", lambda: (torch.zeros(99, dtype=torch.int32), 40))


def mixed(lines: int) -> SamplingTensors:
    def column(values: list, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).repeat(lines)[:lines]

    return SamplingTensors(
        temperature=column([0.0, 0.6, 1.0, 2.0, 0.9]),
        top_k=column([0, 0, 1, 5, 50, 1000], torch.int64),
        top_p=column([1.0, 1.0, 0.9, 0.5, 0.1, 1.0, 0.8]),
        min_p=column([0.0, 0.0, 0.05, 1.0, 0.0, 0.0, 0.0, 0.0]),
        noise=uniform(torch.full((lines,), 3), torch.arange(lines)),
        any_greedy=True,
        any_random=True,
        largest_top_k=1000,
        any_top_p=True,
        any_min_p=True,
    )


def some_logits(vocab: int, scale: float, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(LINES, vocab, generator=torch.Generator().manual_seed(vocab)) * scale
    x[0], x[0, vocab // 2] = float("-inf"), 1.0
    x[1, : vocab // 2] = float("-inf")
    return x.to(dtype)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("vocab", "scale"), [(1, 1.0), (40, 0.0), (5003, 0.02), (5003, 4.0), (20000, 1.0)])
def test_tokens_and_distributions_are_the_cores(vocab, scale, dtype, reverse, monkeypatch):
    if reverse:
        monkeypatch.setenv("FIBERS_REVERSE", "1")
    sampler, logits, asked = sampling.Sampler(None), some_logits(vocab, scale, dtype), mixed(LINES)
    got, want = sampler.probs(logits, asked), ReferenceSampler().probs(logits, asked)
    assert torch.equal(got > 0, want > 0)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    assert torch.equal(sampler(logits, asked), ReferenceSampler()(logits, asked))


@pytest.mark.parametrize("seed", range(4))
def test_zeros_of_both_signs_are_one_logit(seed):
    """Of 0 and -0 a reduction gives some threads one and some the other: they went different ways, and never met."""
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(seed)) * 0
    asked = mixed(4)
    asked.temperature.copy_(torch.tensor([1.0, 2.0, 1.0, 2.0]))
    asked.top_p.copy_(torch.tensor([0.1, 0.9, 0.1, 0.9]))
    asked.top_k.fill_(5)
    asked.min_p.fill_(0.05)
    assert torch.equal(sampling.Sampler(None)(logits, asked), (asked.noise * 40).long())


def test_the_largest_logit_is_the_first_of_equals():
    for vocab in (1, 33, 5003, 40_008):
        logits = torch.randint(-3, 3, (3, vocab)).bfloat16()
        logits[0] = float("-inf")
        assert torch.equal(sampling.argmax(None)(logits), logits.float().argmax(-1))


def test_a_nucleus_of_most_tokens_is_found_in_passes():
    logits = torch.randn(2, 40_000, generator=torch.Generator().manual_seed(1)) * 0.5
    asked = mixed(2)
    asked.temperature.fill_(1.0)
    asked.top_p.copy_(torch.tensor([0.9, 0.3]))
    got, want = sampling.Sampler(None).probs(logits, asked), ReferenceSampler().probs(logits, asked)
    assert (want > 0).sum(-1).min() > 4000
    assert ((got > 0) != (want > 0)).sum(-1).max() <= 2  # rounding of a sum of so many
    torch.testing.assert_close(got.sum(-1), torch.ones(2))


def test_penalties_and_scores_are_the_references():
    make = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 40_000, generator=make)
    tokens = torch.randint(-1, 40_000, (6, 300), generator=make, dtype=torch.int32)
    tokens[:, ::2] %= 7
    tokens[:, 0] = 5
    lines, ends = torch.randperm(5, generator=make)[:4], torch.randint(1, 301, (4,), generator=make)
    factors = [torch.rand(6, generator=make) + 0.5 for _ in range(3)]
    arguments = (lines, torch.tensor([3, 0, 5, 5]), ends, tokens, torch.arange(6) * 50, *factors)
    want = logits.clone()
    ops.penalize(want, *arguments)
    edits.penalize(None)(logits, *arguments)
    assert torch.equal(logits, want)

    came = torch.tensor([0, 39_999, -1, 7, 12])
    for mine, theirs in zip(logprobs.Score(None)(logits, came), ops.token_logprobs(logits, came), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("vocab", "length"), [(5, 1), (5, 2), (40, 3), (5003, 5), (40_001, 3)])
def test_edits_are_the_references_bit_for_bit(vocab, length, dtype, reverse, monkeypatch):
    if reverse:
        monkeypatch.setenv("FIBERS_REVERSE", "1")
    run = edits.edit_logits(None)
    for seed in range(2 if vocab > 1000 else 8):
        logits, arguments = case(vocab, dtype, seed, length)
        want = logits.clone()
        ops.edit_logits(want, **arguments)
        run(logits, **arguments)
        assert same(logits, want)
        assert not same(case(vocab, dtype, seed, length)[0], want)


@pytest.mark.parametrize("left_out", [("restricts", "keep"), ("words",), ("min_end", "stops"), ("bias_ids", "bias")])
def test_edits_do_without_any_of_their_tables(left_out):
    logits, arguments = case(300, torch.float32, 4)
    for name in left_out:
        del arguments[name]
    want = logits.clone()
    ops.edit_logits(want, **arguments)
    edits.edit_logits(None)(logits, **arguments)
    assert same(logits, want)


@pytest.mark.parametrize("vocab", [5, 64, 5003, 40_001])
def test_masks_of_grammars_are_the_references_bit_for_bit(vocab):
    logits, masks = torch.randn(6, vocab), torch.randint(-(2**31), 2**31, (4, 3 + vocab // 32), dtype=torch.int32)
    lines, want = torch.tensor([5, 0, 3, 2]), logits.clone()
    ops.apply_token_bitmask(want, lines, masks)
    edits.apply_token_bitmask(None)(logits, lines, masks)
    assert same(logits, want)
    assert want.isinf().any()
