"""Changes to logits, a launch or two each: the ops ``edit_logits``, ``apply_token_bitmask`` and ``penalize``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.queries import OpQuery
from vllm_kernels.kernel import Kernel
from vllm_kernels.sampling import KINDS
from vllm_kernels.variant import Variant

FILE = "edits.cu"
PART, THREADS = 16384, 512  # tokens of the vocabulary a block, as in the source
MOST_MARKS = 96 * 1024  # bytes of shared memory that every GPU has: a bit a token


def variants() -> list[Variant]:
    return [Variant(file=FILE, names=("penalize", "restrict_lines", "edit_lines", "apply_token_bitmask"))]


def edit_logits(query: OpQuery) -> Callable[..., None]:
    restrict = Kernel(FILE, "restrict_lines", "PiPPPPi", dependent=True)
    edit = Kernel(FILE, "edit_lines", "PiPPPPlPPiiPPiPPii", shared=MOST_MARKS, dependent=True)

    def run(
        logits: Tensor,
        lines: Tensor,
        rows: Tensor,
        ends: Tensor,
        tokens: Tensor,
        prompt_len: Tensor,
        restricts: Tensor | None = None,
        keep: Tensor | None = None,
        words: Tensor | None = None,
        word_length: int = 1,
        min_end: Tensor | None = None,
        stops: Tensor | None = None,
        bias_ids: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        vocab, marks = logits.shape[1], 4 * -(-logits.shape[1] // 32)
        if logits.dtype not in KINDS or marks > MOST_MARKS:
            tables = (restricts, keep, words, word_length, min_end, stops, bias_ids, bias)
            ops.edit_logits(logits, lines, rows, ends, tokens, prompt_len, *tables)
            return
        kind, count = KINDS[logits.dtype], len(lines)
        if restricts is not None and keep is not None:
            restrict((-(-vocab // PART), count), THREADS, logits, kind, lines, rows, restricts, keep, vocab)
        word, stop, one = width(words), width(stops), width(bias_ids)
        if word or stop or one:
            place = (logits, kind, lines, rows, ends, tokens, tokens.stride(0), prompt_len)
            tables = (words, word, word_length, min_end, stops, stop, bias_ids, bias, one)
            edit((1, count), THREADS, *place, *tables, vocab, shared=marks)

    return run


def width(table: Tensor | None) -> int:
    """Entries of a row."""
    return 0 if table is None else table.shape[1]


def apply_token_bitmask(query: OpQuery) -> Callable[[Tensor, Tensor, Tensor], None]:
    kernel = Kernel(FILE, "apply_token_bitmask", "PPPli", dependent=True)

    def run(logits: Tensor, lines: Tensor, masks: Tensor) -> None:
        vocab = logits.shape[1]
        masks = masks if masks.stride(1) == 1 else masks.contiguous()
        kernel((-(-vocab // PART), len(lines)), THREADS, logits, lines, masks, masks.stride(0), vocab)

    return run


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
        kernel((-(-vocab // PART), len(lines)), THREADS, logits, lines, rows, ends, tokens, *of_rows, *sizes)

    return run
