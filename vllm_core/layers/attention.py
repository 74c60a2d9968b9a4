"""The attention slot: declares its cache and takes the backend that the plan found."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.base import Layer
from vllm_core.layers.shards import split, split_heads


class Attention(Layer):
    """softmax(q k^T * scale) v over all cached tokens of each sequence, or those of a window.

    heads, kv_heads    over all ranks
    scale              of scores; default k_dim ** -0.5
    window             tokens a query sees, itself included; None: all
    soft_cap           scores become soft_cap * tanh(scores / soft_cap)
    sinks              True: a learned logit a head, parameter ``sinks``
    cache_of           dotted path of another attention slot whose keys and values this one reads
                       instead of keeping its own
    """

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        v_dim: int | None = None,
        scale: float | None = None,
        causal: bool = True,
        window: int | None = None,
        soft_cap: float | None = None,
        sinks: bool = False,
        cache_of: str | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.k_dim, self.v_dim = heads, kv_heads, head_dim, v_dim or head_dim
        self.scale = head_dim**-0.5 if scale is None else scale
        self.causal, self.window, self.soft_cap = causal, window, soft_cap
        self.has_sinks, self.cache_of = sinks, cache_of

    def setup(self, plan: Plan) -> None:
        group = plan.group("tp")
        mine = split(self.heads, group, f"{self.path}: query heads")
        kv_heads = split_heads(self.kv_heads, 1, group, f"{self.path}: key/value heads").size
        if self.has_sinks:
            self.make_parameter("sinks", (mine.size,), plan.dtype, plan.torch_device)
            self.loads["sinks"] = {"": SlotRange((self.heads,), ((mine.start, mine.stop),), ((0, mine.size),))}
        self.kv_dtype = str(plan.kv_dtype).removeprefix("torch.")
        sizes: dict[str, Any] = {"num_kv_heads": kv_heads, "k_dim": self.k_dim, "v_dim": self.v_dim}
        sizes["dtype"] = self.kv_dtype
        spec = FullAttentionCache(**sizes) if self.window is None else SlidingWindowCache(**sizes, window=self.window)
        plan.cache(self.path, spec, shared_with=self.cache_of)
        self.attend = plan.attention(
            self.path,
            num_heads=mine.size,
            num_kv_heads=kv_heads,
            k_dim=self.k_dim,
            v_dim=self.v_dim,
            scale=self.scale,
            causal=self.causal,
            window=self.window,
            soft_cap=self.soft_cap,
            sinks=self.has_sinks,
        )

    def forward(self, q: Tensor, k: Tensor | None, v: Tensor | None, batch: Batch) -> Tensor:
        """q [T, H, k_dim], k [T, KV, k_dim], v [T, KV, v_dim] -> [T, H, v_dim]. With ``cache_of``, k and v are None."""
        return self.attend(q, k, v, batch, self._parameters.get("sinks"))
