"""Metadata of a file under its architecture's prefix, and what most decoders' config.json has of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.dequantize import Type
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.rope import scaling


class Fields:
    """``llama.block_count`` as ``need("block_count")``. Errors name file and key."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self.file, self.architecture = file, architecture

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise CheckpointError(f"{self.file.path} does not say {self.architecture}.{key}")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A positive whole number; where a file has one for each layer, they must be equal."""
        value = self.need(key) if default is None else self.get(key, default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise CheckpointError(
                    f"{self.file.path}: {self.architecture}.{key} differs from layer to layer, which is not"
                    f" read: {value}"
                )
            value = value[0]
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{self.file.path}: {self.architecture}.{key} is {value!r}, not a positive number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The shortest number that float32 stores so: 1e-5, which is read as 9.999999747e-06."""
        value = self.need(key) if default is None else self.get(key, default)
        if isinstance(value, bool | str | list):
            raise CheckpointError(f"{self.file.path}: {self.architecture}.{key} is {value!r}, not a number")
        return float(str(np.float32(value)))

    def has(self, tensor: str) -> bool:
        return tensor in self.file.tensors

    @property
    def head_dim(self) -> int:
        each = self.size("embedding_length") // self.size("attention.head_count")
        return self.size("attention.key_length", self.size("rope.dimension_count", each))

    @property
    def vocab_size(self) -> int:
        table = self.file.tensors.get("token_embd.weight")
        if table is not None and len(table.shape) == 2:
            return table.shape[0]
        return self.get("vocab_size") or len(self.file.metadata.get("tokenizer.ggml.tokens", ()))

    def refuse_experts(self) -> None:
        if count := self.get("expert_count", 0):
            raise CheckpointError(f"{self.file.path} is a mixture of {count} experts: only dense models are read")


def decoder(f: Fields, architecture: str, model_type: str, *, head_dim: int | None = None) -> dict[str, Any]:
    """The fields of config.json that Llama and its relatives share."""
    f.refuse_experts()
    heads, head_dim = f.size("attention.head_count"), head_dim or f.head_dim
    if f.size("attention.value_length", head_dim) != head_dim:
        raise CheckpointError(f"{f.file.path}: heads of values have another size than those of keys, which is not read")
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": f.size("embedding_length"),
        "intermediate_size": f.size("feed_forward_length"),
        "num_hidden_layers": f.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": f.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": f.size("context_length"),
        "tie_word_embeddings": not f.has("output.weight"),
        "vocab_size": f.vocab_size,
        "torch_dtype": stored_dtype(f.file),
    }


def full_rotary(f: Fields, head_dim: int, theta: float = 10000.0) -> dict[str, Any]:
    """Rotary fields of a family that rotates whole heads."""
    if f.size("rope.dimension_count", head_dim) != head_dim:
        raise CheckpointError(
            f"{f.file.path} rotates {f.get('rope.dimension_count')} of {head_dim} elements of a head: not read"
        )
    base = f.number("rope.freq_base", theta)
    return {"rope_theta": base, "rope_scaling": scaling(f.file, f.architecture, head_dim, base)}


def stored_dtype(file: GgufFile) -> str:
    """What the matrices hold. Quantized ones count as float32, in which other engines multiply them: rounding
    the few bits they carry once more turns near ties over (SmolLM2 forgets that Paris is a capital)."""
    kinds = {t.type for t in file.tensors.values() if len(t.shape) > 1}
    plain = {Type.F32: "float32", Type.F16: "float16", Type.BF16: "bfloat16"}
    return plain.get(next(iter(kinds)), "float32") if len(kinds) == 1 else "float32"
