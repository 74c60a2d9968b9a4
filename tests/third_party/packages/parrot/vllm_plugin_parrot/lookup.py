"""Prompt lookup (arXiv 2304.04487) on the device. Shapes: N rows, L room for tokens, n words, k drafts."""

import torch

from vllm_core.interfaces.proposer import Drafts


class PromptLookup:
    taps = ()
    needs_hidden = False

    def __init__(self, num_drafts, config):
        self.num_drafts, self.words = num_drafts, config.get("words", 2)

    def bind(self, model, plan):
        """Shares nothing with the model."""

    def propose(self, rows, view, hidden, taps):
        ids = view.token_ids[rows]  # [N, L]
        length = view.num_tokens[rows].long()[:, None]  # [N, 1]
        n, room = self.words, ids.shape[1]
        tail = ids.gather(1, (length - n + torch.arange(n, device=ids.device)).clamp_min(0))  # [N, n]
        start = torch.arange(room - n, device=ids.device)  # of an earlier occurrence
        same = (ids.unfold(1, n, 1)[:, : room - n] == tail[:, None]).all(-1) & (start + n < length)
        # The latest occurrence that as many tokens follow as are wanted; else the latest of all.
        score = torch.where(same, start + room * (start + n + self.num_drafts <= length), -1)
        found = score.amax(1, keepdim=True)  # [N, 1]
        at = found % room + n + torch.arange(self.num_drafts, device=ids.device)  # [N, k]
        known = (found >= 0) & (length > n) & (at < length)
        return Drafts(ids=torch.where(known, ids.gather(1, at.clamp_max(room - 1)), -1))
