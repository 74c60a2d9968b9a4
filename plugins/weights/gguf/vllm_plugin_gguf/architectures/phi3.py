"""GGUF's architecture "phi3": Phi-3, 3.5 and 4, with fused matrices and LongRoPE."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder
from vllm_plugin_gguf.rope import LONG, SHORT, long_rope

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}


def _config(f: Fields) -> dict[str, Any]:
    head_dim = f.size("embedding_length") // f.size("attention.head_count")
    context = f.size("context_length")
    return {
        **decoder(f, "Phi3ForCausalLM", "phi3", head_dim=head_dim),
        "hidden_act": "silu",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "sliding_window": f.get("attention.sliding_window") or None,  # 0: none
        "partial_rotary_factor": f.size("rope.dimension_count", head_dim) / head_dim,
        "original_max_position_embeddings": f.size("rope.scaling.original_context_length", context),
        "rope_theta": f.number("rope.freq_base", 10000.0),
        "rope_scaling": long_rope(f.file, "phi3"),
    }


PHI3 = Architecture(config=_config, layer=_LAYER, not_weights=frozenset({LONG, SHORT}))
