"""Which log-probabilities a step reports: of the tokens it draws and of the prompts it computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.model import Model
from vllm_core.interfaces.steps import RowInit, StepPlan
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.logprobs import TokenLogprobs, lines_at_a_time, token_logprobs
from vllm_core.runner.output import Lines
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import upload
from vllm_core.runner.verify import Emitted

NONE = -1


class Reports:
    """What each row asks for; all of it is known to the host, and so is how far a prompt has come.

    score   an implementation of the op ``token_logprobs``
    """

    def __init__(self, rows: Rows, vocab: int, score: Callable[..., Any] = ops.token_logprobs) -> None:
        self._rows, self._vocab, self._score = rows, vocab, score
        self._sampled = np.full(rows.num_rows, NONE, dtype=np.int64)  # likeliest tokens beside a drawn one
        self._prompt: dict[int, _Prompt] = {}  # by row: prompts that are being computed and reported

    def take(self, inits: Sequence[RowInit]) -> None:
        for init in inits:
            self._sampled[init.row] = self._width(init.sampling.logprobs)
            self._prompt.pop(init.row, None)
            k = self._width(init.sampling.prompt_logprobs)
            if k != NONE and max(init.num_computed + 1, init.report_from) < init.num_prompt:
                self._prompt[init.row] = _Prompt(k, init.num_computed, init.report_from, init.num_prompt)

    def _width(self, k: int | None) -> int:
        return NONE if k is None else self._vocab if k < 0 else min(k, self._vocab)

    def asked(self, rows: np.ndarray) -> bool:
        """Whether any of these rows (int64 [S]) wants a report, or a prompt is being reported."""
        return bool(self._prompt) or bool((self._sampled[rows] != NONE).any())

    def sampled(self, logits: Tensor, inputs: Inputs, emitted: Emitted) -> list[Lines]:
        """Of the tokens that the step emitted. ``logits`` [M, V] are the model's own."""
        widths = self._sampled[inputs.sampling_rows_host]
        if (widths == NONE).all():
            return []
        line_widths = self._sampled[inputs.logits_rows_host]
        tokens = emitted.token_ids.view(-1).index_select(0, inputs.logits_slots)
        lines = []
        for k in np.unique(widths[widths != NONE]).tolist():
            rows = np.flatnonzero(widths == k)
            counts = np.bincount(inputs.logits_sampling_host, minlength=len(widths))[rows]
            at = upload({"at": np.flatnonzero(line_widths == k)}, logits.device)["at"]
            found = token_logprobs(logits.index_select(0, at), tokens.index_select(0, at), k, self._score)
            lines.append(Lines(inputs.sampling_host[rows].tolist(), counts.tolist(), [0] * len(rows), found))
        return lines

    def prompts(self, plan: StepPlan, model: Model, hidden: Tensor) -> list[Lines]:
        """Of the prompt tokens that follow those of this step; ``hidden`` [T, H] gives their logits, in slices."""
        if not self._prompt:
            return []
        found: dict[int, list[tuple[int, int, np.ndarray, np.ndarray]]] = defaultdict(list)
        start = 0
        for i, (row, count) in enumerate(zip(plan.rows, plan.num_tokens, strict=True)):
            prompt = self._prompt.get(row)
            if prompt is not None:
                # The state at position q predicts the token at q + 1.
                first = max(prompt.computed + 1, prompt.report_from)
                positions = np.arange(first, min(prompt.computed + count + 1, prompt.length))
                if len(positions):
                    at = start + positions - 1 - prompt.computed
                    found[prompt.k].append((i, first, at, row * self._rows.room + positions))
                prompt.computed += count
                if prompt.computed + 1 >= prompt.length:
                    del self._prompt[row]
            start += count
        return [self._lines(k, chunks, model, hidden) for k, chunks in found.items()]

    def _lines(
        self, k: int, chunks: list[tuple[int, int, np.ndarray, np.ndarray]], model: Model, hidden: Tensor
    ) -> Lines:
        host = {"at": np.concatenate([c[2] for c in chunks]), "tokens_at": np.concatenate([c[3] for c in chunks])}
        dev = upload(host, hidden.device)
        tokens = self._rows.token_ids.view(-1).index_select(0, dev["tokens_at"]).long()
        size = lines_at_a_time(self._vocab)
        parts = [
            token_logprobs(model.logits(hidden.index_select(0, at)), ids, k, self._score)
            for at, ids in zip(dev["at"].split(size), tokens.split(size), strict=True)
        ]
        return Lines(
            [c[0] for c in chunks], [len(c[2]) for c in chunks], [c[1] for c in chunks], TokenLogprobs.join(parts)
        )


class _Prompt:
    def __init__(self, k: int, computed: int, report_from: int, length: int) -> None:
        self.k, self.computed, self.report_from, self.length = k, computed, report_from, length
