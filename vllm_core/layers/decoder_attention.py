"""The first half of a decoder layer as one layer, so that one fused kernel can be all of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.plan import Plan
from vllm_core.layers.attention import Attention
from vllm_core.layers.base import Layer
from vllm_core.layers.fused import fused_over_ranks
from vllm_core.layers.linear import RowLinear
from vllm_core.layers.norm import AddOnly, LayerNorm, NoNorm, RMSNorm
from vllm_core.layers.params import methods_of
from vllm_core.layers.qkv import QKVLinear
from vllm_core.layers.rotary import Rotary


class DecoderAttention(Layer):
    """Residual add, norm, QKV, norms of q and k, rotary, cache write, attention, output projection.

    norm       before QKV
    post_norm  of the output, before it is added
    qk_norm    of each query and key head, before rotary (copied: q and k have weights of their own); or two
               layers, of q and of k, that take and give [T, heads, head_dim]
    rotary     None: no positions (NoPE)
    bias       of QKV; out_bias of the output projection
    window, soft_cap, sinks, scale, causal   as in `Attention`

    Parameters: ``norm.*``, ``qkv.*`` (slots q, k, v), ``q_norm.*``, ``k_norm.*``, ``out.*``, ``post_norm.*``,
    ``attend.sinks``.
    """

    def __init__(
        self,
        *,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        norm: RMSNorm | LayerNorm | NoNorm | AddOnly,
        rotary: Rotary | None = None,
        qk_norm: RMSNorm | LayerNorm | tuple[Layer, Layer] | None = None,
        post_norm: Layer | None = None,
        bias: bool = False,
        out_bias: bool = False,
        scale: float | None = None,
        causal: bool = True,
        window: int | None = None,
        soft_cap: float | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        self.hidden, self.head_dim = hidden, head_dim
        self.norm = norm
        self.qkv = QKVLinear(hidden, heads, kv_heads, head_dim, bias)
        pair = qk_norm if isinstance(qk_norm, tuple) else (qk_norm, qk_norm)
        self.q_norm, self.k_norm = (copy.deepcopy(norm) for norm in pair)
        self.rotary = rotary
        self.attend = Attention(
            heads, kv_heads, head_dim, scale=scale, causal=causal, window=window, soft_cap=soft_cap, sinks=sinks
        )
        self.out = RowLinear(heads * head_dim, hidden, out_bias)
        self.post_norm = post_norm

    def bound(self, plan: Plan) -> None:
        # Children under plain attributes, which are found faster than nn.Module's.
        self.add_norm, self.qk_norms = self.norm.add, None
        if self.q_norm is not None and self.k_norm is not None:
            self.qk_norms = self.q_norm.forward, self.k_norm.forward
        self.project, self.split = self.qkv.forward, self.qkv.split
        self.rotate: Callable[..., Tensor] | None = self.rotary.forward if self.rotary is not None else None
        self.attention, self.out_project = self.attend.forward, self.out.forward
        self.norm_output = self.post_norm.forward if self.post_norm is not None else None
        self.heads, self.kv_heads = self.qkv.heads, self.qkv.kv_heads
        self.run = fused_over_ranks(plan, "decoder_attention", self) or self.compose

    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """x, residual [T, hidden] -> (output, residual), both [T, hidden]; the output is not added yet."""
        return self.run(x, residual, batch)

    def fused_shape(self) -> dict[str, int | float | str | bool | None]:
        """What a fused kernel is chosen by: sizes of this rank, in elements and heads."""
        attend = self.attend
        return {
            "hidden": self.hidden,
            "heads": self.qkv.heads,
            "kv_heads": self.qkv.kv_heads,
            "head_dim": self.head_dim,
            "norm": type(self.norm).__name__,
            "qk_norm": "+".join(sorted({type(n).__name__ for n in (self.q_norm, self.k_norm) if n is not None}))
            or None,
            "post_norm": type(self.post_norm).__name__ if self.post_norm is not None else None,
            "rotary_dim": self.rotary.table.rotary_dim if self.rotary is not None else None,
            "interleaved": self.rotary is not None and self.rotary.table.interleaved,
            "bias": self.qkv.has_bias,
            "out_bias": self.out.has_bias,
            "causal": attend.causal,
            "window": attend.window,
            "soft_cap": attend.soft_cap,
            "sinks": attend.has_sinks,
            "kv_dtype": attend.kv_dtype,
            "linear": methods_of(self.qkv, self.out),
        }

    def compose(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
        """The layer in single ops: what ``forward`` means, and does unless a kernel is offered."""
        h, residual = self.add_norm(x, residual)
        qkv = self.project(h)
        if self.qk_norms is None and self.rotate is not None:
            # q and k lie side by side: turn them in one call.
            both = self.heads + self.kv_heads
            qk = qkv[:, : both * self.head_dim].unflatten(-1, (both, self.head_dim))
            v = qkv[:, both * self.head_dim :].unflatten(-1, (self.kv_heads, self.head_dim))
            qk = self.rotate(qk, batch)
            q, k = qk[:, : self.heads], qk[:, self.heads :]
        else:
            q, k, v = self.split(qkv)
            if self.qk_norms is not None:
                q, k = self.qk_norms[0](q), self.qk_norms[1](k)
            if self.rotate is not None:
                q, k = self.rotate(q, batch), self.rotate(k, batch)
        o = self.attention(q, k, v, batch)
        o = self.out_project(o.flatten(1))
        return o if self.norm_output is None else self.norm_output(o), residual
