"""GGUF's architecture "llama": Llama 1 to 3.x, SmolLM2, TinyLlama, Mistral 7B. Config and names of LlamaForCausalLM."""

from __future__ import annotations

import re
from typing import Any

import gguf

from vllm_core.weights.errors import CheckpointError
from vllm_core.weights.transforms import RotaryPairs, Transform
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.rope import scaling

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_NOT_WEIGHTS = "rope_freqs.weight"  # becomes rope_scaling in the config


def config(file: GgufFile) -> dict[str, Any]:
    """The config.json of the same model."""
    m = file.metadata

    def get(key: str, default: Any = None) -> Any:
        value = m.get(f"llama.{key}", default)
        if value is None:
            raise CheckpointError(f"{file.path} does not say llama.{key}")
        return value

    if get("expert_count", 0):
        raise CheckpointError(
            f"{file.path} is a mixture of {get('expert_count')} experts (Mixtral): only dense models are read"
        )
    heads, hidden = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", get("rope.dimension_count", hidden // heads))
    if get("rope.dimension_count", head_dim) != head_dim:
        raise CheckpointError(
            f"{file.path} rotates {get('rope.dimension_count')} of {head_dim} elements of a head: not read"
        )
    vocab = (
        m.get("llama.vocab_size")
        or len(m.get("tokenizer.ggml.tokens", ()))
        or file.tensors["token_embd.weight"].shape[0]
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": get("context_length"),
        # Stored in float32: 1e-5 comes back as 9.999999747e-06.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": get("rope.freq_base", 10000.0),
        "rope_scaling": scaling(file, "llama", head_dim, get("rope.freq_base", 10000.0)),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "vocab_size": vocab,
        "torch_dtype": _dtype(file),
    }


def names(file: GgufFile) -> dict[str, tuple[str, Transform | None]]:
    """Tensor of the file -> (name in the safetensors checkpoint, how its rows are stored)."""
    pairs = RotaryPairs(config(file)["head_dim"])
    found: dict[str, tuple[str, Transform | None]] = {}
    for name in file.tensors:
        if name == _NOT_WEIGHTS:
            continue
        module, _, parameter = name.rpartition(".")
        block = _BLOCK.fullmatch(name)
        if block and block[2] in _LAYER:
            transform = pairs if block[2] in ("attn_q", "attn_k") else None
            found[name] = (f"model.layers.{block[1]}.{_LAYER[block[2]]}.{block[3]}", transform)
        elif module in _TOP:
            found[name] = (f"{_TOP[module]}.{parameter}", None)
        else:
            found[name] = (name, None)  # the model's weight rules will say that they do not know it
    return found


def _dtype(file: GgufFile) -> str:
    """What the matrices hold. Quantized ones count as float32, in which other engines multiply them: rounding
    the few bits they carry once more turns near ties over (SmolLM2 forgets that Paris is a capital)."""
    T = gguf.GGMLQuantizationType
    kinds = {t.type for t in file.tensors.values() if len(t.shape) > 1}
    for kind, dtype in ((T.F32, "float32"), (T.F16, "float16")):
        if kinds == {kind}:
            return dtype
    return "float32"
