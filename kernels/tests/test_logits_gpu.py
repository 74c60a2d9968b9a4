"""Penalties and scores of tokens on a GPU against the references of their ops."""

from __future__ import annotations

import pytest
import torch

from kernels.tests.edits_case import case, same
from vllm_core import ops
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def query(op: str) -> OpQuery:
    return OpQuery(op=op, dtype="bfloat16", device=Device("cuda", capability=(9, 0)), shape={})


def rand(low: int, high: int, *shape: int, dtype=torch.int64) -> torch.Tensor:
    return torch.randint(low, high, shape, dtype=dtype, device="cuda")


@pytest.mark.parametrize("vocab", [12, 5003, 16384, 151936])
@pytest.mark.parametrize("length", [1, 40, 3000])
def test_penalties_are_the_references_bit_for_bit(vocab, length):
    from vllm_kernels.edits import penalize

    run = penalize(query("penalize"))
    lines, chosen, rows = 40, 33, 50
    logits = torch.randn(lines, vocab, device="cuda")
    logits[:, ::7] = float("-inf")
    tokens = rand(-1, vocab, rows, length + 9, dtype=torch.int32)
    tokens[: rows // 2] %= 11  # some many times
    tokens[:, 0] = 5
    arguments = (
        torch.randperm(lines, device="cuda")[:chosen],
        rand(0, rows, chosen),
        rand(1, length + 1, chosen),
        tokens[:, :length],
        rand(1, length + 1, rows),
        torch.rand(rows, device="cuda") + 0.5,
        torch.randn(rows, device="cuda"),
        torch.randn(rows, device="cuda"),
    )
    want = logits.clone()
    ops.penalize(want, *arguments)
    run(logits, *arguments)
    assert torch.equal(logits, want)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("vocab", "length"), [(5, 1), (40, 3), (5003, 5), (151936, 2)])
def test_edits_are_the_references_bit_for_bit(vocab, length, dtype, graph):
    from vllm_kernels.edits import edit_logits

    run = edit_logits(query("edit_logits"))
    for seed in range(4):
        with torch.device("cuda"):
            logits, arguments = case(vocab, dtype, seed, length)
        want, before = logits.clone(), logits.clone()
        ops.edit_logits(want, **arguments)
        run(logits, **arguments)
        if graph:
            recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recorded):
                run(logits, **arguments)
            logits.copy_(before)
            recorded.replay()
        assert same(logits, want)


@pytest.mark.parametrize("vocab", [5, 64, 5003, 151936])
def test_masks_of_grammars_are_the_references_bit_for_bit(vocab):
    from vllm_kernels.edits import apply_token_bitmask

    logits = torch.randn(60, vocab, device="cuda")
    masks = rand(-(2**31), 2**31, 50, 3 + vocab // 32, dtype=torch.int32)
    lines, want = torch.randperm(60, device="cuda")[:50], logits.clone()
    ops.apply_token_bitmask(want, lines, masks)
    apply_token_bitmask(query("apply_token_bitmask"))(logits, lines, masks)
    assert same(logits, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("vocab", [1, 12, 5003, 151936])
@pytest.mark.parametrize("lines", [0, 1, 37, 300])
def test_scores_are_those_of_float64(dtype, vocab, lines):
    from vllm_kernels.logprobs import Score

    logits = (torch.randn(lines, vocab, device="cuda") * 3).to(dtype)
    logits[3:4, : vocab // 2] = float("-inf")
    tokens = rand(0, vocab, lines)
    tokens[1:2] = -1
    tokens[3:4] = vocab // 2
    logprobs, ranks, sums = Score(query("token_logprobs"))(logits, tokens)
    scores, at = logits.double(), tokens.clamp_min(0)[:, None]
    own, total = scores.gather(1, at)[:, 0], scores.logsumexp(-1)
    torch.testing.assert_close(sums.double(), total, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(logprobs.double(), own - total, rtol=1e-6, atol=4e-6)
    assert torch.equal(ranks, ((scores > own[:, None]).sum(-1) + 1).int())
    assert (logprobs.dtype, ranks.dtype, sums.dtype) == (torch.float32, torch.int32, torch.float32)
