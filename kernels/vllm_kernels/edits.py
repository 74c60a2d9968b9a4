"""Changes to logits, a launch each: the op ``penalize``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.kernel import Kernel
from vllm_kernels.variant import Variant

FILE = "edits.cu"
PART = 16384  # tokens of the vocabulary a block, as in the source


def variants() -> list[Variant]:
    return [Variant(file=FILE, names=("penalize",))]


def penalize(query: OpQuery) -> Callable[..., None]:
    kernel = Kernel(FILE, "penalize", "PPPPPPPPPiil", shared=4 * PART, dependent=True)

    def run(
        logits: Tensor,
        lines: Tensor,
        rows: Tensor,
        ends: Tensor,
        tokens: Tensor,
        prompt_len: Tensor,
        repetition: Tensor,
        presence: Tensor,
        frequency: Tensor,
        counting: bool = True,
    ) -> None:
        vocab = logits.shape[1]
        of_rows = (prompt_len, repetition, presence, frequency)
        sizes = (vocab, tokens.shape[1], tokens.stride(0))
        kernel((-(-vocab // PART), len(lines)), 512, logits, lines, rows, ends, tokens, *of_rows, *sizes)

    return run
