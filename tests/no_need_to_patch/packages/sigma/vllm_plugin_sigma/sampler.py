"""Top-n-sigma (arXiv 2411.07641): before the usual draw, tokens far below the best one are dropped."""

import torch

from vllm_core.ops.sampler import ReferenceSampler


class TopNSigma(ReferenceSampler):
    def __init__(self, query):
        super().__init__(query)
        self.n = query.options["n"]

    def __call__(self, logits, params):
        return super().__call__(self.cut(logits), params)

    def probs(self, logits, params):
        return super().probs(self.cut(logits), params)

    def cut(self, logits):
        """logits [N, V] -> float32 [N, V], -inf where a token is dropped. What others dropped counts for nothing."""
        scores = logits.float()
        there = scores > float("-inf")
        count = there.sum(-1, keepdim=True)
        mean = torch.where(there, scores, 0).sum(-1, keepdim=True) / count
        variance = torch.where(there, scores - mean, 0).square().sum(-1, keepdim=True) / count
        floor = scores.amax(-1, keepdim=True) - self.n * variance.sqrt()
        return scores.masked_fill(scores < floor, float("-inf"))
