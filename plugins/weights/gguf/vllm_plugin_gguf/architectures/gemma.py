"""GGUF's architecture "gemma". Norms are stored raised by 1, so that they multiply as they are."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary


def _config(f: Fields) -> dict[str, Any]:
    base = decoder(f, "GemmaForCausalLM", "gemma")
    return {
        **base,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "attention_bias": False,
        **full_rotary(f, base["head_dim"]),
    }


GEMMA = Architecture(config=_config, shifted="norm.weight")
