"""No pair of neighbouring tokens comes twice in an output. Works where several tokens come in a step, too."""

import torch


class NoPairs:
    keeps_argmax = False
    needs_ids = False

    def __init__(self, query):
        self.begin = torch.zeros(query.max_rows, dtype=torch.int64)  # of a row's output

    @classmethod
    def check(cls, params, query):
        wanted = params.get("no_pairs", False)
        if type(wanted) is not bool:
            raise ValueError(f"no_pairs must be true or false, not {wanted!r:.40}")
        return wanted

    def take(self, row, params, prompt_ids):
        self.begin[row] = len(prompt_ids)

    def apply(self, logits, rows, ends, view, ids):
        """Tokens before each line's, drafts among them, are ``view.token_ids[row, :end]``."""
        self.begin = self.begin.to(logits.device)
        known = view.token_ids[rows].long()  # [N, L]
        at = torch.arange(known.shape[1] - 1, device=known.device)
        last = known.gather(1, (ends - 1)[:, None])
        paired = (known[:, :-1] == last) & (at >= self.begin[rows][:, None]) & (at + 1 < ends[:, None])
        banned = torch.where(paired, known[:, 1:], logits.shape[1])
        wider = torch.cat((logits, logits[:, :1]), 1)  # a column for tokens that are not banned
        return wider.scatter_(1, banned.clamp_min(0), float("-inf"))[:, :-1]
