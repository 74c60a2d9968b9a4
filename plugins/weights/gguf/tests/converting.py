"""transformers' models written as GGUF files, as llama.cpp's convert_hf_to_gguf.py writes them.

Names of tensors come from the gguf package's own map. A quantized file's dequantized numbers are
written back into the model, which is then the oracle of what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import gguf
import numpy as np
from gguf.tensor_mapping import get_tensor_name_map
from gguf_writing import finish, permuted

from vllm_core.testing.reference import Reference

T = gguf.GGMLQuantizationType
QUANTIZED_BY_GGUF = (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0)


@attrs.frozen(kw_only=True)
class Family:
    """A GGUF architecture: a tiny config, the metadata that the converter writes, and what it does to tensors."""

    arch: gguf.MODEL_ARCH
    model: str  # class of transformers
    config: Mapping[str, Any]
    metadata: Callable[[gguf.GGUFWriter, Any], None]
    rearranged: Callable[[str, np.ndarray, Any], np.ndarray] = lambda name, data, config: data
    raised: bool = False  # norms' weights by 1
    gains: Mapping[str, float] = {}
    tensors: Callable[[gguf.GGUFWriter, Any], None] = lambda w, config: None

    def reference(self, **changes: Any) -> Reference:
        import transformers

        return Reference(getattr(transformers, self.model), {**self.config, **changes}, gains=self.gains)

    def write(self, path: Any, reference: Reference, kind: T | Callable[[str], T] = T.F32) -> None:
        """Matrices in the given type (or one by name), vectors in float32; the reference then holds the same."""
        config = reference.model.config
        w = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[self.arch])
        self.metadata(w, config)
        self.tensors(w, config)
        names = get_tensor_name_map(self.arch, config.num_hidden_layers)
        for name, p in reference.model.named_parameters():  # a tied head is listed once
            own = p.detach().numpy()
            new = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert new, name
            if own.ndim == 1:
                w.add_tensor(new, self.rearranged(name, own, config) + (self.raised and name.endswith("norm.weight")))
                continue
            data = self.rearranged(name, own, config)
            which = kind if isinstance(kind, T) else kind(new)
            blocks = packed(data, which)
            w.add_tensor(new, blocks, raw_dtype=which)
            place = self.rearranged(name, np.arange(own.size).reshape(own.shape), config)
            own.reshape(-1)[place.ravel()] = gguf.quants.dequantize(blocks, which).ravel()
        finish(w)


def packed(data: np.ndarray, kind: T) -> np.ndarray:
    """Quantized by the gguf package; for the K types, which it only reads, random blocks with scales that fit."""
    data = np.ascontiguousarray(data)
    if kind in QUANTIZED_BY_GGUF:
        return gguf.quants.quantize(data, kind)
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(data.size)
    blocks = rng.integers(0, 256, (data.size // numbers, size), dtype=np.uint8)
    for place in SCALES[kind]:
        blocks[:, place : place + 2] = np.full((len(blocks), 1), 1, np.float16).view(np.uint8)
    unit = gguf.quants.dequantize(blocks, kind)
    middle, spread = unit.mean(), unit.std()
    scale = data.std() / np.hypot(spread, middle)
    for place in SCALES[kind]:
        scales = scale * rng.uniform(0.5, 1.5, (len(blocks), 1)) * rng.choice([-1, 1], (len(blocks), 1))
        blocks[:, place : place + 2] = scales.astype(np.float16).view(np.uint8)
    return blocks.reshape(*data.shape[:-1], -1)


SCALES = {T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}
"""Bytes at which a K block's float16 scales lie."""


def sizes(w: gguf.GGUFWriter, c: Any) -> None:
    """What the converter writes for every decoder (TextModel.set_gguf_parameters)."""
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(getattr(c, "num_key_value_heads", c.num_attention_heads))


def rms(w: gguf.GGUFWriter, c: Any) -> None:
    sizes(w, c)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)


def with_theta(w: gguf.GGUFWriter, c: Any) -> None:
    rms(w, c)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])


def llama(w: gguf.GGUFWriter, c: Any) -> None:
    with_theta(w, c)
    w.add_vocab_size(c.vocab_size)
    w.add_rope_dimension_count(c.head_dim)


def mistral(w: gguf.GGUFWriter, c: Any) -> None:
    llama(w, c)
    w.add_sliding_window(c.sliding_window)


def keys(w: gguf.GGUFWriter, c: Any) -> None:
    with_theta(w, c)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)


def gemma(w: gguf.GGUFWriter, c: Any) -> None:
    rms(w, c)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)


def gemma2(w: gguf.GGUFWriter, c: Any) -> None:
    gemma(w, c)
    w.add_attn_logit_softcapping(c.attn_logit_softcapping)
    w.add_final_logit_softcapping(c.final_logit_softcapping)
    w.add_sliding_window(c.sliding_window)


def gemma3(w: gguf.GGUFWriter, c: Any) -> None:
    gemma(w, c)
    full = c.rope_parameters["full_attention"]
    w.add_rope_freq_base(full["rope_theta"])
    w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(full["factor"])
    w.add_sliding_window(c.sliding_window)


def phi2(w: gguf.GGUFWriter, c: Any) -> None:
    sizes(w, c)
    w.add_layer_norm_eps(c.layer_norm_eps)
    w.add_rope_dimension_count(int(c.rope_parameters["partial_rotary_factor"] * c.hidden_size) // c.num_attention_heads)
    w.add_add_bos_token(False)


def phi3(w: gguf.GGUFWriter, c: Any) -> None:
    rms(w, c)
    rope = c.rope_parameters
    w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    w.add_rope_dimension_count(int(rope["partial_rotary_factor"] * c.hidden_size) // c.num_attention_heads)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_sliding_window(c.sliding_window or 0)
    if rope["rope_type"] == "longrope":
        growth = c.max_position_embeddings / rope["original_max_position_embeddings"]
        w.add_rope_scaling_attn_factors(np.sqrt(1 + np.log(growth) / np.log(rope["original_max_position_embeddings"])))


def phi3_factors(w: gguf.GGUFWriter, c: Any) -> None:
    for length in ("long", "short"):
        if factors := c.rope_parameters.get(f"{length}_factor"):
            w.add_tensor(f"rope_factors_{length}.weight", np.array(factors, np.float32))


def gpt2(w: gguf.GGUFWriter, c: Any) -> None:
    w.add_block_count(c.n_layer)
    w.add_context_length(c.n_positions)
    w.add_embedding_length(c.n_embd)
    w.add_feed_forward_length(c.n_inner or 4 * c.n_embd)
    w.add_head_count(c.n_head)
    w.add_layer_norm_eps(c.layer_norm_epsilon)


def neox(w: gguf.GGUFWriter, c: Any) -> None:
    sizes(w, c)
    w.add_rope_dimension_count(
        int(c.rope_parameters["partial_rotary_factor"] * (c.hidden_size // c.num_attention_heads))
    )
    w.add_parallel_residual(c.use_parallel_residual)
    w.add_layer_norm_eps(c.layer_norm_eps)


def rotary_pairs(name: str, data: np.ndarray, c: Any) -> np.ndarray:
    if ".q_proj." in name:
        return permuted(data, c.num_attention_heads)
    return permuted(data, c.num_key_value_heads) if ".k_proj." in name else data


def columns_first(name: str, data: np.ndarray, c: Any) -> np.ndarray:
    return data.T if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")) else data


def q_then_k_then_v(name: str, data: np.ndarray, c: Any) -> np.ndarray:
    if "query_key_value" not in name:
        return data
    heads = data.reshape(c.num_attention_heads, 3, -1, *data.shape[1:])
    return np.concatenate([heads[:, i].reshape(-1, *data.shape[1:]) for i in range(3)])
