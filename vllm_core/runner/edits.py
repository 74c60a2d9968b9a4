"""Changes to logits that requests ask for, made before temperature. Rows that ask for none cost nothing.

In vLLM's order: allowed tokens, bad words, minimum length, bias, penalties. What a penalty or a bad
word looks at are the tokens before the one that is drawn, drafts under verification included, so a
draft's successor is drawn as if the draft had been an output. What would leave a row no token at all
is left out there: the only allowed token may be one that ends the text too early.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.row_lists import RowLists
from vllm_core.runner.staging import upload
from vllm_core.runner.step_ops import StepOps

KINDS = ("allowed", "bad_words", "min_tokens", "bias", "penalties")
"""In the order in which they apply; logits processors come before the penalties."""


class Edits:
    """What each of R rows asks for; the host knows which rows ask at all.

    prompt_len   int64 [R], tokens of the prompt: outputs begin there
    restricts    bool [R], rows that restrict their tokens to some
    keep         bool [R, V], allowed tokens of such rows; made when the first one comes
    ops          the kernels that change logits; None: the core's
    """

    def __init__(self, num_rows: int, vocab: int, device: torch.device, ops: StepOps | None = None) -> None:
        self.num_rows, self.vocab, self.device = num_rows, vocab, device
        ops = ops or StepOps()
        self._edit_logits, self._penalize = ops.edit_logits, ops.penalize
        self.asked = {kind: np.zeros(num_rows, dtype=bool) for kind in KINDS}
        self.any = np.zeros(num_rows, dtype=bool)
        self.counting = np.zeros(num_rows, dtype=bool)  # presence or frequency, which need counts
        self.prompt_len = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.min_end = torch.zeros(num_rows, dtype=torch.int64, device=device)  # tokens before a stop is allowed
        self.repetition = torch.ones(num_rows, dtype=torch.float32, device=device)
        self.presence = torch.zeros(num_rows, dtype=torch.float32, device=device)
        self.frequency = torch.zeros(num_rows, dtype=torch.float32, device=device)
        self.restricts = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.keep: Tensor | None = None

        def lists(pad: float, dtype: torch.dtype = torch.int64) -> RowLists:
            return RowLists(num_rows, pad, dtype, device)

        self.stops = lists(-1)
        self.bias_ids, self.bias = lists(-1), lists(0.0, torch.float64)
        # Bad words one after the other, each as long as the longest: prefix (padded with -1 in front), last token.
        self.words, self.word_length = lists(-1), 1
        self._host_words: list[Sequence[Sequence[int]]] = [()] * num_rows

    def take(self, inits: Sequence[RowInit]) -> None:
        """Rows are taken: remember what their requests ask for, forget what others asked there."""
        rows = np.array([init.row for init in inits], dtype=np.int64)
        wanted = [init.sampling for init in inits]
        for kind, asks in _ASKS.items():
            self.asked[kind][rows] = [asks(w) for w in wanted]
        self.counting[rows] = [bool(w.presence_penalty or w.frequency_penalty) for w in wanted]
        before = self.any[rows].any()
        self.any[rows] = np.logical_or.reduce([self.asked[kind][rows] for kind in KINDS])
        if not before and not self.any[rows].any():
            return
        host = {
            "rows": rows,
            "prompt_len": np.array([init.num_prompt for init in inits], dtype=np.int64),
            "min_end": np.array([init.num_prompt + init.sampling.min_tokens for init in inits], dtype=np.int64),
            "repetition": np.array([w.repetition_penalty for w in wanted], dtype=np.float64),
            "presence": np.array([w.presence_penalty for w in wanted], dtype=np.float64),
            "frequency": np.array([w.frequency_penalty for w in wanted], dtype=np.float64),
            "restricts": np.array([bool(w.allowed_ids) for w in wanted], dtype=np.int64),
        }
        new = upload(host, self.device)
        for name in [name for name in host if name != "rows"]:
            target: Tensor = getattr(self, name)
            target.index_copy_(0, new["rows"], new[name].to(target.dtype))
        at = rows.tolist()
        self._set_allowed(new["rows"], at, [w.allowed_ids for w in wanted])
        self.stops.set(at, [w.stop_ids if w.min_tokens else () for w in wanted])
        self.bias_ids.set(at, [list(w.logit_bias) for w in wanted])
        self.bias.set(at, [list(w.logit_bias.values()) for w in wanted])
        self._set_words(at, [w.bad_words for w in wanted])

    def apply(
        self,
        logits: Tensor,
        host_rows: np.ndarray,
        rows: Tensor,
        ends: Tensor,
        tokens: Tensor,
        kinds: Sequence[str] = KINDS,
    ) -> Tensor:
        """Changed logits, float32 [M, V]; ``logits`` itself if no row asks for anything of these kinds.

        host_rows, rows   [M], the row of each line, on the host and on the device
        ends              int64 [M], tokens before the one that this line draws
        tokens            int32 [R, L] of the rows; -1 stands for no guess
        """
        if not self.any[host_rows].any():
            return logits
        asked = {kind: lines for kind in kinds if (lines := self.asked[kind][host_rows]).any()}
        if not asked:
            return logits
        logits = logits.to(torch.float32, copy=True)
        penalties = asked.pop("penalties", None)
        if asked:
            at = upload({"lines": np.flatnonzero(np.logical_or.reduce(list(asked.values())))}, self.device)["lines"]
            own = (at, rows.index_select(0, at), ends.index_select(0, at), tokens, self.prompt_len)
            self._edit_logits(logits, *own, **self._tables(asked))
        if penalties is not None:
            lines = np.flatnonzero(penalties)
            at = upload({"lines": lines}, self.device)["lines"]
            own = (at, rows.index_select(0, at), ends.index_select(0, at), tokens, self.prompt_len)
            factors = (self.repetition, self.presence, self.frequency)
            self._penalize(logits, *own, *factors, bool(self.counting[host_rows[lines]].any()))
        return logits

    def _tables(self, asked: Container[str]) -> dict[str, Any]:
        """Of these kinds, as the op ``edit_logits`` takes them. A row that asks for nothing has nothing in them."""
        tables: dict[str, Any] = {}
        if "allowed" in asked:
            tables |= {"restricts": self.restricts, "keep": self.keep}
        if "bad_words" in asked:
            tables |= {"words": self.words.table, "word_length": self.word_length}
        if "min_tokens" in asked:
            tables |= {"min_end": self.min_end, "stops": self.stops.table}
        if "bias" in asked:
            tables |= {"bias_ids": self.bias_ids.table, "bias": self.bias.table}
        return tables

    def _set_allowed(self, rows: Tensor, host_rows: Sequence[int], allowed: Sequence[Sequence[int]]) -> None:
        if self.keep is None:
            if not any(allowed):
                return
            self.keep = torch.zeros(self.num_rows, self.vocab, dtype=torch.bool, device=self.device)
        self.keep.index_fill_(0, rows, False)
        at = [np.asarray(ids, dtype=np.int64) + row * self.vocab for row, ids in zip(host_rows, allowed, strict=True)]
        self.keep.view(-1).index_fill_(0, upload({"at": np.concatenate(at)}, self.device)["at"], True)

    def _set_words(self, rows: list[int], words: Sequence[Sequence[Sequence[int]]]) -> None:
        for row, own in zip(rows, words, strict=True):
            self._host_words[row] = own
        longest = max((len(word) for own in words for word in own), default=1)
        if longest > self.word_length:  # the others' words are laid out anew
            self.word_length = longest
            rows = list(range(self.num_rows))
        flat = [
            [token for word in self._host_words[row] for token in [-1] * (self.word_length - len(word)) + list(word)]
            for row in rows
        ]
        self.words.set(rows, flat)


_ASKS = {
    "allowed": lambda s: bool(s.allowed_ids),
    "bad_words": lambda s: bool(s.bad_words),
    "min_tokens": lambda s: s.min_tokens > 0 and bool(s.stop_ids),
    "bias": lambda s: bool(s.logit_bias),
    "penalties": lambda s: s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0,
}
