"""Prompt lookup (arXiv 2304.04487) on the device. Shapes: N rows, L room for tokens, k drafts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.proposer import Drafts, RowView


class PromptLookup:
    """Guesses that what followed a row's last tokens before follows them again.

    Of all earlier occurrences of the last n tokens, the one for the largest n counts, n at most
    ``prompt_lookup_max`` and at least ``prompt_lookup_min``; of several, the first in the row, as
    in vLLM: most tokens follow it. It may overlap the last tokens themselves.
    """

    taps: tuple[int, ...] = ()
    needs_hidden = False

    def __init__(self, num_drafts: int, config: Mapping[str, Any]) -> None:
        self.num_drafts = num_drafts
        self.longest, self.shortest = config["prompt_lookup_max"], config["prompt_lookup_min"]

    def bind(self, model: Any, plan: Any) -> None:
        """It shares nothing with the model."""

    def propose(self, rows: Tensor, view: RowView, hidden: Tensor | None, taps: Mapping[int, Tensor]) -> Drafts:
        ids = view.token_ids.index_select(0, rows)  # [N, L]
        last = view.num_tokens.index_select(0, rows).long()[:, None] - 1  # [N, 1]
        column = torch.arange(ids.shape[1], device=ids.device)  # [L]
        # As many of a row's last tokens as end at each column, up to the longest: column c has
        # i more of them while c - i holds the i-th token before the last.
        same = column < last  # [N, L]
        length = torch.zeros_like(same, dtype=torch.int8)
        for i in range(min(self.longest, ids.shape[1])):
            same[:, i:] &= ids[:, : ids.shape[1] - i] == ids.gather(1, (last - i).clamp_min(0))
            same[:, :i] = False
            length += same
        longest = length.amax(1, keepdim=True)  # [N, 1]
        first = torch.where(length == longest, column, ids.shape[1]).amin(1, keepdim=True)  # [N, 1]
        at = first + 1 + torch.arange(self.num_drafts, device=ids.device)  # [N, k]
        guess = ids.gather(1, at.clamp_max(ids.shape[1] - 1))
        return Drafts(ids=torch.where((longest >= self.shortest) & (at <= last), guess, -1))
