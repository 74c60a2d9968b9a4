"""GGUF's architecture "qwen2": Qwen 1.5 to 2.5, and models distilled into them. Dense, without windows."""

from __future__ import annotations

from typing import Any

from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary


def _config(f: Fields) -> dict[str, Any]:
    base = decoder(f, "Qwen2ForCausalLM", "qwen2")
    return {
        **base,
        "hidden_act": "silu",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        "use_sliding_window": False,
        **full_rotary(f, base["head_dim"]),
    }


QWEN2 = Architecture(config=_config)
