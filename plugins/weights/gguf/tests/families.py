"""A tiny model of each architecture. Sizes are multiples of 64, so that every type of 32 numbers a block fits."""

from __future__ import annotations

import converting as c
from converting import Family
from gguf import MODEL_ARCH

SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EPS = {"rms_norm_eps": 1e-5}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
PLAIN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
GEMMA = {**SIZES, **EPS, "num_hidden_layers": 2, "head_dim": 32}
PHI_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "long_factor": [1.5] * 8,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], "original_max_position_embeddings": 64,
}  # fmt: skip

FAMILIES = {
    "llama": Family(
        arch=MODEL_ARCH.LLAMA, model="LlamaForCausalLM", metadata=c.llama, rearranged=c.rotary_pairs,
        config={**SIZES, **EPS, **ROPE, "head_dim": 32},
    ),
    "llama with biases, tied": Family(
        arch=MODEL_ARCH.LLAMA, model="LlamaForCausalLM", metadata=c.llama, rearranged=c.rotary_pairs,
        config={**SIZES, **EPS, **ROPE, "head_dim": 16, "attention_bias": True, "mlp_bias": True,
                "tie_word_embeddings": True},
    ),
    "mistral": Family(
        arch=MODEL_ARCH.LLAMA, model="MistralForCausalLM", metadata=c.mistral, rearranged=c.rotary_pairs,
        config={**SIZES, **EPS, **ROPE, "head_dim": 16, "sliding_window": 7},
    ),
    "qwen2": Family(
        arch=MODEL_ARCH.QWEN2, model="Qwen2ForCausalLM", metadata=c.with_theta, config={**SIZES, **EPS, **ROPE},
    ),
    "qwen3": Family(
        arch=MODEL_ARCH.QWEN3, model="Qwen3ForCausalLM", metadata=c.keys, gains={"*_norm.weight": 1.5},
        config={**SIZES, **EPS, **ROPE, "head_dim": 32, "tie_word_embeddings": True},
    ),
    "gemma": Family(
        arch=MODEL_ARCH.GEMMA, model="GemmaForCausalLM", metadata=c.gemma, raised=True, config={**GEMMA, **PLAIN_ROPE},
    ),
    "gemma2": Family(
        arch=MODEL_ARCH.GEMMA2, model="Gemma2ForCausalLM", metadata=c.gemma2, raised=True,
        config={**GEMMA, **PLAIN_ROPE, "sliding_window": 7, "query_pre_attn_scalar": 32,
                "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
    ),
    "gemma3": Family(
        arch=MODEL_ARCH.GEMMA3, model="Gemma3ForCausalLM", metadata=c.gemma3, raised=True,
        config={**GEMMA, "num_hidden_layers": 6, "sliding_window": 7, "query_pre_attn_scalar": 32,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "phi2": Family(
        arch=MODEL_ARCH.PHI2, model="PhiForCausalLM", metadata=c.phi2,
        config={**SIZES, "num_key_value_heads": 4, "layer_norm_eps": 1e-4, "rope_parameters": PHI_ROPE},
    ),
    "phi3": Family(
        arch=MODEL_ARCH.PHI3, model="Phi3ForCausalLM", metadata=c.phi3,
        config={**SIZES, **EPS, "original_max_position_embeddings": 128, "sliding_window": 7,
                "rope_parameters": {**PHI_ROPE, "original_max_position_embeddings": 128}},
    ),
    "phi3 with LongRoPE": Family(
        arch=MODEL_ARCH.PHI3, model="Phi3ForCausalLM", metadata=c.phi3, tensors=c.phi3_factors,
        config={**SIZES, **EPS, "original_max_position_embeddings": 64, "rope_parameters": LONG_ROPE},
    ),
    "gpt2": Family(
        arch=MODEL_ARCH.GPT2, model="GPT2LMHeadModel", metadata=c.gpt2, rearranged=c.columns_first,
        config={"vocab_size": 97, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96,
                "layer_norm_epsilon": 1e-4, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "gptneox": Family(
        arch=MODEL_ARCH.GPTNEOX, model="GPTNeoXForCausalLM", metadata=c.neox, rearranged=c.q_then_k_then_v,
        config={**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}, "layer_norm_eps": 1e-4,
                "rope_parameters": {**PHI_ROPE, "partial_rotary_factor": 0.25}},
    ),
}  # fmt: skip
"""Name -> family; several variants of one architecture may be there."""
