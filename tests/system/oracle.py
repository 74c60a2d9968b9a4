"""SmolLM2 in transformers, from the same GGUF file, by nobody's code that is tested here.

The gguf package dequantizes and transformers computes. Loading through transformers' own GGUF
reader gives the same tensors bit for bit, in three times the time.
"""

from __future__ import annotations

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(path: str) -> LlamaForCausalLM:
    """The model in float32."""
    reader = GGUFReader(path)

    def field(name: str):
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        vocab_size=field("vocab_size"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=True,
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for tensor in reader.tensors:
        *block, kind = tensor.name.removesuffix(".weight").split(".")
        data = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if kind in heads:  # stored in rotary pairs, used as halves
            pairs = data.reshape(heads[kind], data.shape[0] // heads[kind] // 2, 2, -1)
            data = pairs.swapaxes(1, 2).reshape(data.shape)
        prefix = f"model.layers.{block[1]}." if block else ""
        tensors[f"{prefix}{NAMES[kind]}.weight"] = torch.from_numpy(data.copy())
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, assign=True, strict=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # computed, not loaded
    return model.eval()


@torch.inference_mode()
def follows_greedily(model: LlamaForCausalLM, prompt: list[int], output: list[int]) -> list[int]:
    """The likeliest token at each place of the output, given all before it: ``output`` itself if it is greedy.

    By induction over the places this is what a greedy loop gives, for one pass instead of many.
    """
    logits = model(torch.tensor([prompt + output])).logits[0]
    return logits[len(prompt) - 1 : -1].argmax(-1).tolist()


@torch.inference_mode()
def generate(model: LlamaForCausalLM, prompt: list[int], tokens: int) -> list[int]:
    """transformers' own greedy loop."""
    x = torch.tensor([prompt])
    y = model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=tokens, do_sample=False, pad_token_id=0,
                       eos_token_id=None)  # fmt: skip
    return y[0, len(prompt) :].tolist()
