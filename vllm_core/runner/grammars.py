"""The grammars of rows at work: each knows its row's output so far and masks the tokens that may not come next.

A mask needs the ids of all earlier steps on the host. The device works on this step's forward pass while the host
waits for them and fills masks; then all rows are sampled. Whatever a grammar raises ends its own request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from vllm_core import ops
from vllm_core.interfaces.grammar import Grammar, GrammarSpec
from vllm_core.interfaces.reasoning_parser import ReasoningParser
from vllm_core.interfaces.steps import RowInit
from vllm_core.runner.host_ids import HostIds
from vllm_core.runner.inputs import Inputs
from vllm_core.runner.reasoning_gate import ReasoningGate
from vllm_core.runner.rows import Rows
from vllm_core.runner.staging import upload
from vllm_core.runner.verify import Emitted

__all__ = ["GrammarRows", "GrammarSource"]

SLOW, SLOW_TOKEN = 0.15, 0.002
"""Seconds of this thread that a row may take in one step, and more for each token that it has to catch up with.

An ambiguous grammar takes longer with every token, without end. The first step beyond this is its last.
"""


NO_REASONING = 3
"""Tokens within which it shows that an output begins without reasoning."""


class GrammarSource(Protocol):
    """Where grammars come from: ``engine.grammars.Grammars``."""

    def start(self, spec: GrammarSpec) -> Grammar: ...

    def reasoning(self, options: Mapping[str, Any]) -> Callable[[], ReasoningParser] | None: ...


@attrs.define(slots=True)
class _Row:
    grammar: Grammar | None = None
    gate: ReasoningGate | None = None  # before the grammar begins
    fed: int = 0  # output ids that gate and grammar know
    error: str = ""


class GrammarRows:
    """``mask``: an implementation of the op ``apply_token_bitmask``."""

    def __init__(
        self, rows: Rows, vocab: int, source: GrammarSource, mask: Callable[..., None] = ops.apply_token_bitmask
    ) -> None:
        self._rows, self._source, self._mask = rows, source, mask
        self._words = -(-vocab // 32)
        self._width = self._words + self._words % 2  # numbers travel in pairs
        self._ids = HostIds(rows)
        self._of: dict[int, _Row] = {}
        self.any = np.zeros(rows.num_rows, dtype=bool)
        self._last: tuple[Tensor, Tensor] | None = None  # lines and masks
        self.failed: dict[int, str] = {}  # in the step applied last: which of the plan's rows, and why

    def take(self, inits: Sequence[RowInit]) -> None:
        for init in inits:
            spec = init.sampling.grammar
            self._of.pop(init.row, None)
            self.any[init.row] = spec is not None
            self._ids.take(init, spec is not None)
            if spec is not None:
                self._of[init.row] = self._begin(spec, init)

    def apply(self, logits: Tensor, inputs: Inputs) -> Tensor:
        """Masked logits, float32 [M, V]; ``logits`` itself, never written to, if no row here has a grammar."""
        self.failed, self._last = {}, None
        lines = np.flatnonzero(self.any[inputs.logits_rows_host])
        if not len(lines):
            return logits
        self._ids.wait()
        masks = np.full((len(lines), self._width), -1, dtype=np.int32)
        blind: list[int] = []
        first = 0
        while first < len(lines):
            line = lines[first]
            row, n = int(inputs.logits_rows_host[line]), int(inputs.logits_sampling_host[line])
            count = 1
            while first + count < len(lines) and inputs.logits_sampling_host[lines[first + count]] == n:
                count += 1
            state = self._of[row]
            self._fill(row, state, masks[first : first + count, : self._words])
            if state.error:
                self.failed[int(inputs.sampling_host[n])] = state.error
            if state.gate is not None and count > 1:
                blind.append(row)
            first += count
        if blind:
            self._forget_drafts(blind)
        new = upload({"lines": lines, "masks": masks.reshape(-1).view(np.int64)}, logits.device)
        logits = logits.to(torch.float32, copy=True)
        self._last = new["lines"], new["masks"].view(torch.int32).view(len(lines), self._width)
        self._mask(logits, *self._last)
        return logits

    def again(self, logits: Tensor, before: Tensor) -> Tensor:
        """The same masks over what logits processors made of ``before``; where no token is left, ``before`` stands."""
        if self._last is None or logits is before:
            return logits
        lines, masks = self._last
        masked = logits.clone()
        self._mask(masked, lines, masks)
        dead = masked.amax(-1, keepdim=True) == float("-inf")
        return torch.where(dead, before.float(), masked)

    def after(self, inputs: Inputs, emitted: Emitted) -> None:
        """The step has moved the rows on and the next drafts are written."""
        self._ids.after(inputs, emitted)

    def _begin(self, spec: GrammarSpec, init: RowInit) -> _Row:
        try:
            state = _Row(self._source.start(spec))
            options = init.sampling.reasoning
            make = None if options is None else self._source.reasoning(options)
            if make is not None:
                state.gate = ReasoningGate(make, init.token_ids[: init.num_prompt])
            return state
        except Exception as error:
            return _Row(error=_said(error))

    def _fill(self, row: int, state: _Row, masks: np.ndarray) -> None:
        """The masks of a row's lines: the next token's, and one behind each of its guesses that may stand."""
        if state.error:
            return
        outputs = self._ids.outputs[row]
        limit = time.thread_time() + SLOW + SLOW_TOKEN * (len(outputs) - state.fed)
        try:
            self._feed(state, outputs)
            grammar = state.grammar
            if state.gate is not None or grammar is None or grammar.finished:
                return
            guesses, accepted = self._ids.drafts.get(row, []), 0
            for i, mask in enumerate(masks):
                grammar.fill(mask)
                if not mask.any():
                    if i == 0:
                        raise ValueError("the grammar allows no token of this vocabulary to come next")
                    mask.fill(-1)  # the guess before it could have been the last token
                    break
                guess = guesses[i] if i + 1 < len(masks) and i < len(guesses) else -1
                # Behind a guess that the mask forbids, nothing is drawn.
                if guess < 0 or not mask[guess // 32] >> (guess % 32) & 1 or grammar.accept([guess]) != 1:
                    break
                accepted += 1
                if grammar.finished or time.thread_time() > limit:
                    break
            if accepted:
                grammar.rollback(accepted)
        except Exception as error:
            state.error = _said(error)
        if time.thread_time() > limit and not state.error:
            state.error = (
                f"its grammar takes more than {SLOW} s for a token, which holds up everybody: it is too ambiguous"
            )

    def _feed(self, state: _Row, outputs: list[int]) -> None:
        """Tell gate and grammar what is new."""
        if state.gate is not None:
            begins = state.gate.look(outputs)
            state.fed = len(outputs) if begins is None else begins
            if begins is None:
                return
            state.gate = None
            if 0 < begins <= NO_REASONING and state.grammar is not None:
                # So soon, there may have been none: then what showed it is the beginning of the answer.
                taken = state.grammar.accept(outputs[:begins])
                if taken < begins:
                    state.grammar.rollback(taken)
        grammar, news = state.grammar, outputs[state.fed :]
        if grammar is None or not news or grammar.finished:
            return  # finished: this is a step too many, whose result is dropped
        taken = grammar.accept(news)
        state.fed += taken
        if taken < len(news) and not grammar.finished:
            raise ValueError(f"the grammar does not accept token {news[taken]}, which its own mask had allowed")

    def _forget_drafts(self, which: Sequence[int]) -> None:
        """No guess of these rows stands in this step: where the reasoning ends is not known before."""
        rows = self._rows
        if not rows.num_drafts:
            return
        at = upload({"rows": np.array(which, dtype=np.int64)}, rows.device)["rows"]
        first = at * rows.room + rows.num_tokens.index_select(0, at)
        for i in range(rows.num_drafts):
            rows.token_ids.view(-1).index_fill_(0, first + i, -1)


def _said(error: Exception) -> str:
    return f"structured_outputs: {error if isinstance(error, ValueError) else f'{type(error).__name__}: {error}'}"
