"""What fields of configurations usually mean, and where this core takes such a thing. Hints, not readings."""

from __future__ import annotations

__all__ = ["hint"]

_HINTS = {
    ("embedding_multiplier", "scale_emb", "embedding_scale"): "a factor on embeddings: `embed_factor=` of `CausalLM`",
    (
        "logits_scaling",
        "logit_scale",
        "lm_head_multiplier",
    ): "a factor on logits, or a divisor: `logit_factor=` of `CausalLM`",
    ("final_logit_softcapping",): "`logit_cap=` of `CausalLM`",
    ("residual_multiplier", "scale_depth", "residual_scale"): (
        "a factor on what each half adds: `post_norm=Scale(factor)` of both halves"
    ),
    ("attention_multiplier", "query_pre_attn_scalar", "attention_scale"): (
        "the scale of scores, or its root: `scale=` of `DecoderAttention`"
    ),
    ("attn_logit_softcapping",): "`soft_cap=` of `DecoderAttention`",
    ("qk_layernorm", "use_qk_norm", "qk_norm", "use_qk_layernorm"): "norms of query and key heads: `qk_norm=`",
    ("use_parallel_residual", "parallel_residual", "parallel_attn"): (
        "both halves read the same input: `ParallelDecoderLayer` in place of `DecoderLayer`"
    ),
    ("partial_rotary_factor", "rotary_pct"): "how much of a head is rotated: `rope_parameters` reads it from config",
    ("rotary_dim",): "elements of a head that are rotated: partial_rotary_factor = rotary_dim / head_dim",
    ("no_rope_layers", "no_rope_layer_interval"): "layers without positions: `rotary=None` in those",
    ("clip_qkv", "qkv_clip"): "values are cut: an attention layer of your own (docs/new-plugin.md)",
    ("num_experts", "num_local_experts", "n_routed_experts"): "experts: no layer of this version routes tokens to them",
    ("first_k_dense_replace", "moe_intermediate_size", "num_experts_per_tok"): "of experts; see num_experts",
    ("kv_lora_rank", "q_lora_rank"): "latent attention: no layer of this version does it",
}


def hint(field: str) -> str:
    """A few words, or ""."""
    return next((text for names, text in _HINTS.items() if field in names), "")
