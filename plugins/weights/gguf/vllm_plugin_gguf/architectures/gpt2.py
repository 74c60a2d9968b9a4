"""GGUF's architecture "gpt2". Matrices are stored [out, in]; GPT-2's own checkpoints have [in, out]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.weights.transforms import Transform, Transposed
from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.fields import Fields, stored_dtype

_MATRICES = {
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


def _config(f: Fields) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": f.size("context_length"),
        "n_embd": f.size("embedding_length"),
        "n_layer": f.size("block_count"),
        "n_head": f.size("attention.head_count"),
        "n_inner": f.size("feed_forward_length"),
        "activation_function": "gelu_new",
        "layer_norm_epsilon": f.number("attention.layer_norm_epsilon"),
        "tie_word_embeddings": not f.has("output.weight"),
        "vocab_size": f.vocab_size,
        "torch_dtype": stored_dtype(f.file),
    }


def _stored(config: Mapping[str, Any]) -> dict[str, Transform]:
    return dict.fromkeys(_MATRICES, Transposed())


GPT2 = Architecture(
    config=_config,
    top={
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
    },
    layer={"attn_norm": "ln_1", "ffn_norm": "ln_2", **_MATRICES},
    layers="transformer.h",
    stored=_stored,
    tables=frozenset({"transformer.wpe"}),
    not_weights=frozenset(),
)
