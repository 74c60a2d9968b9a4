"""What tokens score, in one pass over the logits: the op ``token_logprobs``."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.kernel import Kernel
from vllm_kernels.sampling import KINDS, MOST_LINES, THREADS, TILE, WARPS, counters, rows_of
from vllm_kernels.variant import Variant

FILE = "logprobs.cu"


def variants() -> list[Variant]:
    return [Variant(file=FILE, names=("token_logprobs",))]


class Score:
    """``OpKernel`` for ``token_logprobs``: made from the query, called as the op. Any number of lines."""

    def __init__(self, query: OpQuery) -> None:
        self._kernel = Kernel(FILE, "token_logprobs", "PliiiPPPPPP", dependent=True)
        self._arrived, self._blocks = counters()

    def __call__(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = rows_of(logits)
        (lines, vocab), device = logits.shape, logits.device
        logprobs, sums = torch.empty(2, lines, dtype=torch.float32, device=device).unbind()
        ranks = torch.empty(lines, dtype=torch.int32, device=device)
        tiles = -(-vocab // TILE)
        stats = torch.empty(min(lines, MOST_LINES), tiles, 4, dtype=torch.float32, device=device)
        for first in range(0, lines, MOST_LINES):
            part = slice(first, min(first + MOST_LINES, lines))
            some = part.stop - first
            blocks = max(1, min(-(-tiles // WARPS), self._blocks // some))
            of_logits = (logits[part], logits.stride(0), KINDS[logits.dtype], vocab, tiles)
            results = (logprobs[part], ranks[part], sums[part])
            self._kernel((blocks, some), THREADS, *of_logits, tokens[part], stats, self._arrived, *results)
        return logprobs, ranks, sums
