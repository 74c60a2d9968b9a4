"""No run of n tokens appears twice in an output: once computed on the device, once on the host."""

import torch


class NoRepeat:
    """``extra_args={"no_repeat": n}``, n tokens."""

    keeps_argmax = False

    def __init__(self, query):
        assert query.vocab_size > 0
        assert query.max_rows > 0

    @classmethod
    def check(cls, params, query):
        n = params.get("no_repeat")
        if n is not None and (type(n) is not int or not 2 <= n <= 8):
            raise ValueError(f"no_repeat must be a whole number from 2 to 8, not {n!r}")
        return n is not None


class OnDevice(NoRepeat):
    needs_ids = False

    def __init__(self, query):
        super().__init__(query)
        device = torch.device(query.device.type)
        self.n = torch.zeros(query.max_rows, dtype=torch.int64, device=device)
        self.prompt = torch.zeros(query.max_rows, dtype=torch.int64, device=device)

    def take(self, row, params, prompt_ids):
        self.n[row] = params["no_repeat"]
        self.prompt[row] = len(prompt_ids)

    def apply(self, logits, rows, ends, view, ids):
        assert ids is None
        tokens = view.token_ids[rows].long()  # [N, L]
        room = tokens.shape[1]
        n, begin = self.n[rows, None], self.prompt[rows, None]  # [N, 1]
        start = torch.arange(room, device=tokens.device)[None]
        same = (start >= begin) & (start + n <= ends[:, None])
        for back in range(1, 8):  # the token ``back`` before the one that is drawn, and its like in an earlier run
            then = tokens.gather(1, (start + n - 1 - back).clamp(0, room - 1).expand_as(tokens))
            now = tokens.gather(1, (ends[:, None] - back).clamp_min(0))
            same &= (then == now) | (back > n - 1)
        enough = ends[:, None] - begin >= n - 1
        last = tokens.gather(1, (start + n - 1).clamp_max(room - 1).expand_as(tokens))
        vocab = logits.shape[1]
        marks = torch.zeros(len(rows), vocab + 1, dtype=torch.bool, device=logits.device)
        marks.scatter_(1, torch.where(same & enough & (last >= 0), last, vocab), True)
        return logits.masked_fill(marks[:, :vocab], float("-inf"))


class OnHost(NoRepeat):
    needs_ids = True

    def __init__(self, query):
        super().__init__(query)
        self.n = {}

    def take(self, row, params, prompt_ids):
        self.n[row] = params["no_repeat"]

    def apply(self, logits, rows, ends, view, ids):
        for i, (row, known) in enumerate(zip(rows.tolist(), ids, strict=True)):
            n = self.n[row]
            if len(known) < n - 1:
                continue
            tail = list(known[len(known) - n + 1 :])
            for start in range(len(known) - n + 1):
                if list(known[start : start + n - 1]) == tail:
                    logits[i, known[start + n - 1]] = float("-inf")
        return logits


class Sharpen:
    """``extra_args={"sharpen": factor}``: the order of the logits stays."""

    keeps_argmax, needs_ids = True, False
    lines = 0  # seen by all engines of the process

    def __init__(self, query):
        self.factor = torch.ones(query.max_rows, device=torch.device(query.device.type))

    @classmethod
    def check(cls, params, query):
        return "sharpen" in params

    def take(self, row, params, prompt_ids):
        self.factor[row] = params["sharpen"]

    def apply(self, logits, rows, ends, view, ids):
        Sharpen.lines += len(rows)
        return logits.mul_(self.factor[rows, None])


class Broken(Sharpen):
    """Fails inside a step: for some parameters when a row is taken, for large ones when logits are changed."""

    keeps_argmax = False

    def apply(self, logits, rows, ends, view, ids):
        return logits[:, :3] if self.factor[rows].max() > 5 else logits
