"""GGUF's architecture "gemma2"."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import LLAMA_LAYER, Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary

GEMMA2_LAYER = {
    **LLAMA_LAYER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LAYERS_OF_27B = 46


def score_scalar(f: Fields, head_dim: int, layers_of_27b: int) -> int:
    """``query_pre_attn_scalar``, which files do not hold: the size of a head, but hidden_size / heads in the models
    of 27B, known by their number of layers (as in llama.cpp, src/llama-model.cpp, f_attention_scale)."""
    if f.size("block_count") == layers_of_27b:
        return f.size("embedding_length") // f.size("attention.head_count")
    return head_dim


def _config(f: Fields) -> dict[str, Any]:
    base = decoder(f, "Gemma2ForCausalLM", "gemma2")
    return {
        **base,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "attention_bias": False,
        "query_pre_attn_scalar": score_scalar(f, base["head_dim"], _LAYERS_OF_27B),
        "attn_logit_softcapping": f.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": f.number("final_logit_softcapping", 30.0),
        "sliding_window": f.size("attention.sliding_window", 4096),
        **full_rotary(f, base["head_dim"]),
    }


GEMMA2 = Architecture(config=_config, layer=GEMMA2_LAYER, shifted="norm.weight")
