"""GGUF's architecture "qwen3": the dense Qwen3 models, with norms of queries and keys."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import LLAMA_LAYER, Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary


def _config(f: Fields) -> dict[str, Any]:
    base = decoder(f, "Qwen3ForCausalLM", "qwen3")
    return {
        **base,
        "hidden_act": "silu",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "attention_bias": f.has("blk.0.attn_q.bias"),
        "use_sliding_window": False,
        **full_rotary(f, base["head_dim"]),
    }


QWEN3 = Architecture(
    config=_config,
    layer={**LLAMA_LAYER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
)
