"""Changes to logits that requests ask for, made before temperature. Rows that ask for none cost nothing.

In vLLM's order: allowed tokens, bad words, minimum length, bias, penalties. What a penalty or a bad
word looks at are the tokens before the one that is drawn, drafts under verification included, so a
draft's successor is drawn as if the draft had been an output. What would leave a row no token at all
is left out there: the only allowed token may be one that ends the text too early.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.row_lists import RowLists
from vllm_core.runner.staging import upload

KINDS = ("allowed", "bad_words", "min_tokens", "bias", "penalties")
"""In the order in which they apply; logits processors come before the penalties."""


class Edits:
    """What each of R rows asks for; the host knows which rows ask at all.

    prompt_len   int64 [R], tokens of the prompt: outputs begin there
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.num_rows, self.device = num_rows, device
        self.asked = {kind: np.zeros(num_rows, dtype=bool) for kind in KINDS}
        self.any = np.zeros(num_rows, dtype=bool)
        self.prompt_len = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.min_end = torch.zeros(num_rows, dtype=torch.int64, device=device)  # tokens before a stop is allowed
        self.repetition = torch.ones(num_rows, dtype=torch.float32, device=device)
        self.presence = torch.zeros(num_rows, dtype=torch.float32, device=device)
        self.frequency = torch.zeros(num_rows, dtype=torch.float32, device=device)

        def lists(pad: float, dtype: torch.dtype = torch.int64) -> RowLists:
            return RowLists(num_rows, pad, dtype, device)

        self.allowed, self.stops = lists(-1), lists(-1)
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
        }
        new = upload(host, self.device)
        for name in [name for name in host if name != "rows"]:
            target: Tensor = getattr(self, name)
            target.index_copy_(0, new["rows"], new[name].to(target.dtype))
        at = rows.tolist()
        self.allowed.set(at, [w.allowed_ids for w in wanted])
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
        asked = {kind: lines for kind in kinds if len(lines := np.flatnonzero(self.asked[kind][host_rows]))}
        if not asked:
            return logits
        logits = logits.float().clone()
        for kind, lines in asked.items():
            at = upload({"lines": lines}, self.device)["lines"]
            part = logits.index_select(0, at)
            edit = getattr(self, f"_{kind}")
            edit(part, rows.index_select(0, at), ends.index_select(0, at), tokens)
            logits.index_copy_(0, at, part)
        return logits

    def _allowed(self, logits: Tensor, rows: Tensor, ends: Tensor, tokens: Tensor) -> None:
        keep = _marked(self.allowed.table.index_select(0, rows), logits.shape[1])
        _mask(logits, ~keep)

    def _min_tokens(self, logits: Tensor, rows: Tensor, ends: Tensor, tokens: Tensor) -> None:
        early = ends < self.min_end.index_select(0, rows)
        stops = self.stops.table.index_select(0, rows)
        _mask(logits, _marked(torch.where(early[:, None], stops, -1), logits.shape[1]))

    def _bias(self, logits: Tensor, rows: Tensor, ends: Tensor, tokens: Tensor) -> None:
        # A bias of 0 for token 0 stands where a row has none.
        ids, bias = self.bias_ids.table.index_select(0, rows).clamp_min(0), self.bias.table.index_select(0, rows)
        logits.scatter_add_(1, ids, bias.to(logits.dtype))

    def _penalties(self, logits: Tensor, rows: Tensor, ends: Tensor, tokens: Tensor) -> None:
        """arXiv 1909.05858 (repetition, over prompt and output); presence and frequency over the output, as OpenAI."""
        ids = tokens.index_select(0, rows).long()
        column = torch.arange(ids.shape[1], device=ids.device)
        known = (column < ends[:, None]) & (ids >= 0)
        output = known & (column >= self.prompt_len.index_select(0, rows)[:, None])
        vocab = logits.shape[1]
        counts = torch.zeros(len(ids), vocab + 1, device=ids.device)
        counts.scatter_add_(1, torch.where(output, ids, vocab), torch.ones_like(ids, dtype=counts.dtype))
        counts = counts[:, :vocab]
        seen = _marked(torch.where(known, ids, -1), vocab)
        repetition = self.repetition.index_select(0, rows)[:, None]
        logits.copy_(torch.where(seen, torch.where(logits > 0, logits / repetition, logits * repetition), logits))
        logits.sub_(self.frequency.index_select(0, rows)[:, None] * counts)
        logits.sub_(self.presence.index_select(0, rows)[:, None] * (counts > 0))

    def _bad_words(self, logits: Tensor, rows: Tensor, ends: Tensor, tokens: Tensor) -> None:
        n = self.word_length
        words = self.words.table.index_select(0, rows)
        words = words[:, : words.shape[1] // n * n].view(len(rows), -1, n)  # [M, words, n]
        prefix, last = words[:, :, :-1], words[:, :, -1]
        # The n - 1 tokens before the one that is drawn; those of the prompt match nothing.
        at = ends[:, None] + torch.arange(1 - n, 0, device=rows.device)
        past = tokens.index_select(0, rows).long().gather(1, at.clamp_min(0))
        past = torch.where(at >= self.prompt_len.index_select(0, rows)[:, None], past, -2)
        hit = ((prefix == past[:, None]) | (prefix == -1)).all(-1)
        _mask(logits, _marked(torch.where(hit, last, -1), logits.shape[1]))

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


def _mask(logits: Tensor, marks: Tensor) -> None:
    """Take the marked tokens away, except from lines where nothing would be left."""
    left = logits.masked_fill(marks, float("-inf"))
    logits.copy_(torch.where(left.amax(-1, keepdim=True) == float("-inf"), logits, left))


def _marked(ids: Tensor, vocab: int) -> Tensor:
    """bool [M, vocab]: which tokens stand in a line of ids [M, W]; -1 stands for none."""
    marks = torch.zeros(len(ids), vocab + 1, dtype=torch.bool, device=ids.device)
    marks.scatter_(1, torch.where(ids >= 0, ids, vocab), True)
    return marks[:, :vocab]


_ASKS = {
    "allowed": lambda s: bool(s.allowed_ids),
    "bad_words": lambda s: bool(s.bad_words),
    "min_tokens": lambda s: s.min_tokens > 0 and bool(s.stop_ids),
    "bias": lambda s: bool(s.logit_bias),
    "penalties": lambda s: s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0,
}
