"""OLMo 2 (arXiv 2501.00656): norms of what halves give, and of all heads at once. T tokens of a step, H hidden_size."""

from functools import partial
from typing import Any

import attrs
from torch import Tensor

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.plan import Plan
from vllm_core.layers import (
    AddOnly,
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    Layer,
    LayerStack,
    LMHead,
    RMSNorm,
    Rotary,
    TiedHead,
    TokenEmbedding,
)
from vllm_core.layers.shards import split_heads
from vllm_core.weights.rules import ignore, rule


@attrs.frozen(kw_only=True)
class Config:
    """The fields of config.json that this architecture reads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = attrs.Factory(lambda c: c.num_attention_heads, takes_self=True)
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    rope_parameters: dict[str, Any]


class AllHeadsNorm(Layer):
    """RMSNorm over all heads of a token together, of which this rank has some."""

    def __init__(self, heads: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.eps = heads, head_dim, eps

    def setup(self, plan: Plan) -> None:
        self.group = plan.group("tp")
        mine = split_heads(self.heads, self.head_dim, self.group, f"{self.path}: heads")
        self.make_parameter("weight", (mine.size,), plan.dtype, plan.torch_device)
        self.loads["weight"] = {"": SlotRange((mine.full,), ((mine.start, mine.stop),), ((0, mine.size),))}

    def forward(self, x: Tensor) -> Tensor:
        """x [T, heads, head_dim] -> the same."""
        flat = x.flatten(1).float()
        mean = self.group.all_reduce(flat.square().mean(-1, keepdim=True)) / self.group.size
        return (flat * (mean + self.eps).rsqrt() * self.weight.float()).to(x.dtype).view_as(x)


def decoder_layer(c: Config, i: int) -> DecoderLayer:
    """Layer ``i``. Halves take and give (x, residual), both [T, H]."""
    head_dim = c.hidden_size // c.num_attention_heads
    norm = partial(RMSNorm, c.hidden_size, c.rms_norm_eps)
    heads_norm = partial(AllHeadsNorm, head_dim=head_dim, eps=c.rms_norm_eps)
    return DecoderLayer(
        attention=DecoderAttention(
            hidden=c.hidden_size,
            heads=c.num_attention_heads,
            kv_heads=c.num_key_value_heads,
            head_dim=head_dim,
            bias=c.attention_bias,
            out_bias=c.attention_bias,
            qk_norm=(heads_norm(c.num_attention_heads), heads_norm(c.num_key_value_heads)),
            rotary=Rotary(head_dim, c.rope_parameters),
            norm=AddOnly(),
            post_norm=norm(),
        ),
        mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=c.hidden_act, norm=AddOnly(), post_norm=norm()),
    )


class Olmo2ForCausalLM(CausalLM):
    Config = Config
    weights = [
        rule("model.embed_tokens.{w}", "embedding.{w}"),
        rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("model.layers.{i}.self_attn.{x:q|k}_norm.{w}", "layers.{i}.attention.{x}_norm.{w}"),
        rule("model.layers.{i}.self_attn.o_proj.{w}", "layers.{i}.attention.out.{w}"),
        rule("model.layers.{i}.post_attention_layernorm.{w}", "layers.{i}.attention.post_norm.{w}"),
        rule("model.layers.{i}.post_feedforward_layernorm.{w}", "layers.{i}.mlp.post_norm.{w}"),
        rule("model.layers.{i}.mlp.down_proj.{w}", "layers.{i}.mlp.down.{w}"),
        rule("model.layers.{i}.mlp.{x:gate|up}_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("model.norm.{w}", "norm.{w}"),
        rule("lm_head.{w}", "head.{w}"),
        ignore("rotary_emb.inv_freq", "computed, not loaded"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab_size, c.hidden_size),
            layers=LayerStack(c.num_hidden_layers, partial(decoder_layer, c)),
            norm=RMSNorm(c.hidden_size, c.rms_norm_eps),
            head=TiedHead() if c.tie_word_embeddings else LMHead(c.vocab_size, c.hidden_size),
        )
