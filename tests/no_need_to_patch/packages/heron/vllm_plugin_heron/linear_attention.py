"""Linear attention (arXiv 2006.16236) with a decay for each token: a layer with a cache of its own kind.

Shapes: T tokens of a step, S sequences, C states kept of a sequence, N heads of this rank, D head_dim.
"""

import torch
from torch.nn import functional as F

from vllm_core.interfaces.cache import RecurrentCache
from vllm_core.layers import ColumnLinear, Layer, MergedLinear, RowLinear
from vllm_core.layers.shards import split


class LinearAttention(Layer):
    """memory = decay * memory + k^T v, total = decay * total + k, output = q memory / q total, in float32.

    q and k are elu(x) + 1 of their projections, so no total is 0. Norm and residual as in `DecoderAttention`.
    """

    def __init__(self, hidden, heads, head_dim, norm):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm = norm
        self.qkv = MergedLinear(hidden, dict.fromkeys("qkv", heads * head_dim))
        self.decay = ColumnLinear(hidden, heads, bias=True)
        self.out = RowLinear(heads * head_dim, hidden)

    def setup(self, plan):
        n, d = split(self.heads, plan.group("tp"), f"{self.path}: heads").size, self.head_dim
        spec = RecurrentCache(shapes=((n, d, d), (n, d)), dtypes=("float32", "float32"))
        self.state = plan.state(self.path, spec)

    def forward(self, x, residual, batch):
        h, residual = self.norm.add(x, residual)
        q, k, v = (y.float().unflatten(1, (-1, self.head_dim)) for y in self.qkv(h).chunk(3, 1))  # [T, N, D]
        mixed = self.mix(F.elu(q) + 1, F.elu(k) + 1, v, self.decay(h).float().sigmoid(), batch)
        return self.out(mixed.to(x.dtype).flatten(1)), residual

    def mix(self, q, k, v, decay, batch):
        """q, k, v [T, N, D], decay [T, N] -> [T, N, D]. All sequences take their i-th token at the same time."""
        step = self.state.of(batch)
        memory, total = self.state.before(batch)  # [S, N, D, D], [S, N, D]
        starts, ends = step.query_starts[:-1].long(), step.query_starts[1:].long()
        kept = [
            states[:, None].repeat(1, step.keep_in.shape[1], *[1] * (states.ndim - 1)) for states in (memory, total)
        ]
        mixed = v.new_zeros(len(v) + 1, *v.shape[1:])  # the last line is for sequences that have ended
        for i in range(step.longest_query):
            token = (starts + i).clamp_max(len(v) - 1)  # [S]
            runs = starts + i < ends  # [S]
            a = torch.where(runs[:, None], decay[token], 1)[..., None]  # [S, N, 1]
            new = torch.where(runs[:, None, None], k[token], 0)  # [S, N, D]
            memory = a[..., None] * memory + new[..., None] * v[token][:, :, None]
            total = a * total + new
            numerator = (q[token][:, :, None] @ memory)[:, :, 0]
            out = numerator / (q[token] * total).sum(-1, keepdim=True).clamp_min(1e-12)
            mixed.index_copy_(0, torch.where(runs, token, len(v)), out)
            now = step.keep_after == i + 1  # [S, C]
            kept = [
                torch.where(now.view(*now.shape, *[1] * (states.ndim - 1)), states[:, None], known)
                for states, known in zip((memory, total), kept, strict=True)
            ]
        for pages, states in zip(self.state.states, kept, strict=True):
            pages.index_copy_(0, step.keep_in.flatten(), states.flatten(0, 1))
        return mixed[:-1]
