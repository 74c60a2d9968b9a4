"""The fused projection to queries, keys and values."""

from __future__ import annotations

from torch import Tensor

from vllm_core.interfaces.plan import Plan
from vllm_core.layers.linear import Linear
from vllm_core.layers.shards import Shard, split_heads, whole


class QKVLinear(Linear):
    """x -> q, k, v side by side, slots "q", "k" and "v", split by heads.

    With more ranks than key/value heads, ranks share a head: each holds a copy of it.
    """

    def __init__(
        self, hidden: int, heads: int, kv_heads: int, head_dim: int, bias: bool = False, v_dim: int | None = None
    ) -> None:
        self.head_dim, self.v_dim = head_dim, v_dim or head_dim
        super().__init__(hidden, {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * self.v_dim}, bias)
        if heads % kv_heads:
            raise ValueError(f"{heads} query heads are not a multiple of {kv_heads} key/value heads")
        self.heads, self.kv_heads = heads, kv_heads  # over all ranks until bound, then of this rank
        self.all_heads, self.all_kv_heads = heads, kv_heads

    def shards(self, plan: Plan) -> tuple[Shard, dict[str, Shard]]:
        group = plan.group("tp")
        q = split_heads(self.all_heads, self.head_dim, group, f"{self.path}: query heads")
        k = split_heads(self.all_kv_heads, self.head_dim, group, f"{self.path}: key/value heads")
        v = split_heads(self.all_kv_heads, self.v_dim, group, f"{self.path}: key/value heads")
        self.heads, self.kv_heads = q.size // self.head_dim, k.size // self.head_dim
        return whole(self.in_size), {"q": q, "k": k, "v": v}

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views q [T, heads, head_dim], k [T, kv_heads, head_dim], v [T, kv_heads, v_dim] of this rank."""
        q_size, k_size = self.heads * self.head_dim, self.kv_heads * self.head_dim
        q, k, v = qkv.split((q_size, k_size, qkv.shape[-1] - q_size - k_size), dim=-1)
        return (
            q.unflatten(-1, (self.heads, self.head_dim)),
            k.unflatten(-1, (self.kv_heads, self.head_dim)),
            v.unflatten(-1, (self.kv_heads, self.v_dim)),
        )
