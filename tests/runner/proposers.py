"""Two draft proposers on the contract: one looks into the row's own tokens, one into hidden states."""

from __future__ import annotations

import torch

from vllm_core.interfaces.proposer import Drafts


class PromptLookup:
    """What followed the latest earlier occurrence of the row's last ``ngram`` tokens (arXiv 2304.04487)."""

    taps: tuple[int, ...] = ()
    needs_hidden = False

    def __init__(self, num_drafts, config):
        self.num_drafts, self.ngram = num_drafts, config.get("ngram", 2)

    def bind(self, model, plan):
        pass

    def propose(self, rows, view, hidden, taps):
        assert hidden is None
        assert not taps
        ids, length = view.token_ids[rows], view.num_tokens[rows].long()[:, None]  # [N, L], [N, 1]
        n, (_, room) = self.ngram, ids.shape
        end = torch.arange(room - n, device=ids.device)  # a match occupies end .. end + n - 1
        suffix = ids.gather(1, (length - n + torch.arange(n, device=ids.device)).clamp_min(0))
        match = (ids.unfold(1, n, 1)[:, : room - n] == suffix[:, None]).all(-1)
        match &= (end + n < length) & (length > n)
        latest = torch.where(match, end, -1).amax(1, keepdim=True)
        at = latest + n + torch.arange(self.num_drafts, device=ids.device)
        guess = ids.gather(1, at.clamp_max(room - 1))
        return Drafts(ids=torch.where((latest >= 0) & (at < length), guess, -1))


class HiddenHead:
    """Takes what attention added at the last accepted token to hold for the next ones too.

    With ``seed`` in its config it draws its drafts and returns their probabilities.
    """

    needs_hidden = True

    def __init__(self, num_drafts, config):
        self.num_drafts = num_drafts
        self.taps = tuple(config.get("taps", ()))
        seed = config.get("seed")
        self.noise = None if seed is None else torch.Generator().manual_seed(seed)
        self.temperature = config.get("temperature", 1.0)

    def bind(self, model, plan):
        self.model = model

    def propose(self, rows, view, hidden, taps):
        assert hidden.shape == (len(rows), self.model.table.shape[1])
        assert all(taps[i].shape == hidden.shape for i in self.taps)
        length = view.num_tokens[rows].long()[:, None]
        ids = view.token_ids[rows]
        before, token = ids.gather(1, length - 2)[:, 0].long(), ids.gather(1, length - 1)[:, 0].long()
        added = hidden - self.model.table[before]
        for tapped in taps.values():
            added = added + 0.01 * (hidden - tapped)
        drafts, probs = [], []
        for _ in range(self.num_drafts):
            scores = self.model.logits(self.model.table[token] + added)
            if self.noise is None:
                token = scores.argmax(-1)
            else:
                p = (scores.float() / self.temperature).softmax(-1)
                token = torch.multinomial(p, 1, generator=self.noise)[:, 0]
                probs.append(p)
            drafts.append(token)
        return Drafts(ids=torch.stack(drafts, 1).int(), probs=torch.stack(probs, 1) if probs else None)
