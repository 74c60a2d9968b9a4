"""Speculative decoding with a draft model (arXiv 2211.17192). Shapes: S rows in a step, N of them sampled, k drafts.

A pass of the draft model behind each step brings its cache up to the served model's: over the chunk of a
prompt, or over the last two tokens of a row that decodes. Of those the earlier one lacks its entry only
if all drafts were accepted; the entries of rejected drafts are overwritten. The token drawn from its
last logits is the first draft, and each further pass takes the draft before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vllm_core.interfaces.proposer import Drafts, Follower, Pass, ProposerPlan, RowView

METHOD = "draft_sample_method"
NAME = "draft"  # of the second model: its layers and caches lie under it


class DraftModel:
    """``draft_sample_method`` of the user's keys says how drafts are chosen from the draft model's logits.

    (left out)       as the served model draws: with the row's parameters and the same noise. Where
                     both models agree on the probabilities the draft is the token that will be drawn.
    "greedy"         the likeliest token
    "probabilistic"  with the row's parameters and noise of its own; drafts come with their probabilities

    Of the first two ways output tokens are those of plain decoding, of the last their distribution is.
    """

    taps: tuple[int, ...] = ()
    needs_hidden = False

    def __init__(self, num_drafts: int, config: Mapping[str, Any]) -> None:
        self.num_drafts = self.lookahead = num_drafts
        self.wanted = dict(config)
        self.choose = {None: _as_served, "greedy": self._likeliest, "probabilistic": _drawn}[
            self.wanted.pop(METHOD, None)
        ]

    def bind(self, model: Any, plan: ProposerPlan) -> None:
        self.model = plan.second_model(NAME, **self.wanted)
        self.vocab_size = model.vocab_size
        self._argmax = plan.op("argmax", vocab=self.vocab_size)

    def propose(self, rows: Tensor, view: RowView, hidden: Tensor | None, taps: Mapping[int, Tensor]) -> Drafts:
        raise RuntimeError("a draft model follows every step: it cannot be asked for single rows")

    def follow(self, step: Follower) -> Drafts | None:
        lengths = list(step.computed)
        for i in step.sampling:
            lengths[i] += 1  # the token that was sampled
        run = step.batch(NAME, lengths)
        hidden = self._forward(run.ids, run)  # [T, hidden]
        if not step.sampling:
            return None
        hidden = hidden.index_select(0, run.last.index_select(0, step.sampled))
        single = [1] * len(step.sampling)
        ids: list[Tensor] = []
        probs: list[Tensor] = []
        while True:
            token, chances = self.choose(step, self._logits(hidden), len(ids))
            ids.append(token)
            probs += [chances] if chances is not None else []
            if len(ids) == self.num_drafts:
                return Drafts(ids=torch.stack(ids, 1).int(), probs=torch.stack(probs, 1) if probs else None)
            hidden = self._forward(token, step.batch(NAME, single, ahead=len(ids), sampling_only=True))

    def _likeliest(self, step: Follower, logits: Tensor, ahead: int) -> tuple[Tensor, None]:
        return self._argmax(logits), None

    def _forward(self, ids: Tensor, run: Pass) -> Tensor:
        return self.model.forward(self.model.embed(ids, run.batch), run.batch)

    def _logits(self, hidden: Tensor) -> Tensor:
        """float [N, V] over the served model's vocabulary: the two may be padded to different sizes."""
        logits = self.model.logits(hidden)
        missing = self.vocab_size - logits.shape[-1]
        return logits if missing == 0 else F.pad(logits, (0, missing), value=float("-inf"))


def _as_served(step: Follower, logits: Tensor, ahead: int) -> tuple[Tensor, None]:
    return step.draw(logits, ahead), None


def _drawn(step: Follower, logits: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
    return step.guess(logits, ahead)
