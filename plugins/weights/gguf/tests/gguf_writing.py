"""Writing GGUF files as llama.cpp's converter does."""

from __future__ import annotations

from functools import cache

import gguf
import numpy as np
import torch

T = gguf.GGMLQuantizationType


def permuted(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter stores queries and keys: each head's two halves interleaved."""
    d = w.shape[0] // heads
    order = [h * d + (r % 2) * (d // 2) + r // 2 for h in range(heads) for r in range(d)]
    return w[order]


def llama_writer(path, *, heads=4, kv_heads=2, hidden=128, inner=96, layers=2, vocab=64, context=256):
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name("tiny")
    w.add_context_length(context)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(hidden // heads)
    w.add_vocab_size(vocab)
    return w


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_name(name: str) -> str:
    for hf, ours in (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")):
        if name.startswith(hf + "."):
            return name.replace(hf, ours)
    _, _, i, rest = name.split(".", 3)
    module, _, parameter = rest.rpartition(".")
    return f"blk.{i}.{NAMES[module]}.{parameter}"


def add_tensors(writer, state, heads, kv_heads, kind=T.F32):
    """Matrices in the given type, vectors in float32, as llama.cpp's converter does it."""
    for name, t in state.items():
        data = t.float().numpy()
        if ".q_proj." in name:
            data = permuted(data, heads)
        if ".k_proj." in name:
            data = permuted(data, kv_heads)
        if data.ndim == 1 or kind == T.F32:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(data))
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(data, kind), raw_dtype=kind)


@cache
def small_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=128,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
            rms_norm_eps=1e-5,
            max_position_embeddings=256,
            tie_word_embeddings=False,
        )
    )
