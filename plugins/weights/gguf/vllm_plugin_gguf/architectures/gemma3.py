"""GGUF's architecture "gemma3": the text model; the image encoder is in an mmproj file beside it."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.gemma2 import GEMMA2_LAYER, score_scalar
from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary

_LAYERS_OF_27B = 62


def _config(f: Fields) -> dict[str, Any]:
    base = decoder(f, "Gemma3ForCausalLM", "gemma3_text")
    return {
        **base,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "attention_bias": False,
        "query_pre_attn_scalar": score_scalar(f, base["head_dim"], _LAYERS_OF_27B),
        "final_logit_softcapping": f.get("final_logit_softcapping"),
        "sliding_window": f.size("attention.sliding_window"),
        "sliding_window_pattern": 6,
        "rope_local_base_freq": f.number("rope.freq_base_swa", 10000.0),
        **full_rotary(f, base["head_dim"], 1000000.0),
    }


GEMMA3 = Architecture(
    config=_config,
    layer={**GEMMA2_LAYER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
    shifted="norm.weight",
)
