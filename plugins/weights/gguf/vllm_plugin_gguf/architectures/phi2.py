"""GGUF's architecture "phi2": Phi-1, 1.5 and 2."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder
from vllm_plugin_gguf.rope import scaling


def _config(f: Fields) -> dict[str, Any]:
    head_dim = f.size("embedding_length") // f.size("attention.head_count")
    theta = f.number("rope.freq_base", 10000.0)
    return {
        **decoder(f, "PhiForCausalLM", "phi", head_dim=head_dim),
        "hidden_act": "gelu_new",
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "partial_rotary_factor": f.size("rope.dimension_count", head_dim) / head_dim,
        "rope_theta": theta,
        "rope_scaling": scaling(f.file, "phi2", head_dim, theta),
    }


PHI2 = Architecture(
    config=_config,
    top={"token_embd": "model.embed_tokens", "output_norm": "model.final_layernorm", "output": "lm_head"},
    layer={
        "attn_norm": "input_layernorm",
        "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),  # of the first files
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.dense",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    },
    not_weights=frozenset(),
)
