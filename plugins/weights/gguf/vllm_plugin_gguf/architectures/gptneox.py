"""GGUF's architecture "gptneox": GPT-NeoX 20B, Pythia. Queries, keys and values lie one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.weights.transforms import Transform
from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, decoder
from vllm_plugin_gguf.rope import scaling
from vllm_plugin_gguf.transforms import Turns


def _config(f: Fields) -> dict[str, Any]:
    head_dim = f.size("embedding_length") // f.size("attention.head_count")
    theta = f.number("rope.freq_base", 10000.0)
    return {
        **decoder(f, "GPTNeoXForCausalLM", "gpt_neox", head_dim=head_dim),
        "hidden_act": "gelu",
        "layer_norm_eps": f.number("attention.layer_norm_epsilon"),
        "attention_bias": f.has("blk.0.attn_qkv.bias"),
        "use_parallel_residual": f.get("use_parallel_residual", True),
        "rotary_pct": f.size("rope.dimension_count", head_dim) / head_dim,
        "rotary_emb_base": theta,
        "rope_scaling": scaling(f.file, "gptneox", head_dim, theta),
    }


def _stored(config: Mapping[str, Any]) -> dict[str, Transform]:
    return {"attn_qkv": Turns(3, config["head_dim"])}  # the checkpoint has them head by head


GPTNEOX = Architecture(
    config=_config,
    top={"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "embed_out"},
    layer={
        "attn_norm": "input_layernorm",
        "attn_qkv": "attention.query_key_value",
        "attn_output": "attention.dense",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.dense_h_to_4h",
        "ffn_down": "mlp.dense_4h_to_h",
    },
    layers="gpt_neox.layers",
    stored=_stored,
    not_weights=frozenset(),
)
