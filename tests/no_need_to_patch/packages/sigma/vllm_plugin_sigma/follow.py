"""Drafts what followed the same token the last time, and is sure of it: which drafts stand, the sampler decides."""

import torch

from vllm_core.interfaces.proposer import Drafts


class Follow:
    taps = ()
    needs_hidden = False

    def __init__(self, num_drafts, config):
        self.num_drafts = num_drafts

    def bind(self, model, plan):
        self.vocab_size = model.vocab_size

    def propose(self, rows, view, hidden, taps):
        known, count = view.token_ids[rows].long(), view.num_tokens[rows].long()[:, None]  # [N, L], [N, 1]
        at = torch.arange(known.shape[1] - 1, device=known.device)
        token, drafts = known.gather(1, count - 1), []
        for _ in range(self.num_drafts):
            found = torch.where((known[:, :-1] == token) & (at + 1 < count), at, -1).amax(1, keepdim=True)
            token = torch.where(found < 0, token, known.gather(1, found + 1))
            drafts.append(token)
        ids = torch.cat(drafts, 1)  # [N, k]
        probs = torch.zeros(*ids.shape, self.vocab_size, device=ids.device).scatter_(2, ids[..., None], 1.0)
        return Drafts(ids=ids.int(), probs=probs)
