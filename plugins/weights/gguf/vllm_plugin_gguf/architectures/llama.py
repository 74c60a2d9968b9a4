"""GGUF's architecture "llama": Llama 1 to 3.x, SmolLM2, TinyLlama, Mistral 7B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.weights.transforms import RotaryPairs, Transform
from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder, full_rotary


def _config(f: Fields) -> dict[str, Any]:
    window = f.get("attention.sliding_window", 0)
    names = ("MistralForCausalLM", "mistral") if window else ("LlamaForCausalLM", "llama")
    base = decoder(f, *names)
    own = {
        "hidden_act": "silu",
        "rms_norm_eps": f.number("attention.layer_norm_rms_epsilon"),
        **full_rotary(f, base["head_dim"]),
    }
    if window:
        return {**base, **own, "sliding_window": f.size("attention.sliding_window")}
    biases = {"attention_bias": f.has("blk.0.attn_q.bias"), "mlp_bias": f.has("blk.0.ffn_up.bias")}
    return {**base, **own, **biases}


def _stored(config: Mapping[str, Any]) -> dict[str, Transform]:
    pairs = RotaryPairs(config["head_dim"])  # the order of Meta's own checkpoints
    return {"attn_q": pairs, "attn_k": pairs}


LLAMA = Architecture(config=_config, stored=_stored)
