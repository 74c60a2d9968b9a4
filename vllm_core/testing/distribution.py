"""With guesses, sampled tokens have the distribution that the model gives them: chi-square on a tiny vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.testing.speculating import Ask, Speculating
from vllm_core.testing.statistics import misfit

SAMPLES = 1200
DRAFTS = 2
DEEP = 3  # tokens of an output whose joint distribution is looked at
PARAMS = [{"temperature": 1.7}, {"temperature": 1.2, "top_k": 5, "top_p": 0.9}]


class Distribution:
    """Test of a model with few tokens."""

    least_accepted: ClassVar[float] = 0.0

    @pytest.mark.parametrize("params", PARAMS, ids=["temperature", "top-k and top-p"])
    def test_sampled_tokens_keep_their_distribution(
        self, tiny: tuple[Any, Speculating], params: Mapping[str, float]
    ) -> None:
        reference, speculating = tiny
        vocab = reference.vocab_size
        prompt = [1, 2, 3, 1, 2, 3, 1, 2]
        asks = [
            Ask(tuple(prompt), SamplingParams(**{"seed": i, "max_tokens": DEEP + 1, "ignore_eos": True, **params}))  # type: ignore[arg-type]
            for i in range(SAMPLES)
        ]
        ran = speculating.ran(DRAFTS, asks, max_num_seqs=256, max_num_batched_tokens=2048, max_model_len=16)
        assert ran.accepted, f"none of {ran.guesses} guesses was accepted: this proves nothing"
        if self.least_accepted < 0.9:
            assert ran.accepted < ran.guesses, f"all {ran.guesses} guesses were accepted: this proves nothing"
        joint = exact(reference, prompt, params)  # [vocab ** DEEP]
        drawn = torch.tensor([ids[:DEEP] for ids in ran.tokens])
        for tokens in range(1, DEEP + 1):
            cells = sum(drawn[:, i] * vocab ** (tokens - 1 - i) for i in range(tokens))
            wrong = misfit(cells, joint.view(vocab**tokens, -1).sum(-1))  # type: ignore[arg-type]
            assert not wrong, f"the first {tokens} tokens of {SAMPLES} outputs are not drawn as the model says: {wrong}"


def exact(reference: Any, prompt: list[int], params: Mapping[str, float]) -> Tensor:
    """float64 [vocab ** DEEP]: how likely each sequence of ``DEEP`` tokens is, in the order of its digits."""
    vocab = reference.vocab_size
    known = torch.tensor([prompt])
    likely = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(DEEP):
        with torch.no_grad():
            logits = reference.model(known, use_cache=False).logits[:, -1].double()
        likely = likely.view(-1, 1) * truncated(logits / params["temperature"], params)
        known = torch.cat([known.repeat_interleave(vocab, 0), torch.arange(vocab).repeat(len(known))[:, None]], 1)
    return likely.view(-1)


def truncated(scores: Tensor, params: Mapping[str, float]) -> Tensor:
    """Probabilities [N, vocab] with all but the top-k taken out, then all but the nucleus (arXiv 1904.09751)."""
    ordered, which = scores.sort(descending=True)
    top_k = int(params.get("top_k", 0)) or scores.shape[1]
    p = ordered[:, :top_k].softmax(-1)
    p = torch.where(p.cumsum(-1) - p < params.get("top_p", 1.0), p, 0.0)
    p = p / p.sum(-1, keepdim=True)
    return torch.zeros_like(scores).scatter_(1, which[:, :top_k], p)
