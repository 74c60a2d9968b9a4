"""What this plugin knows of one GGUF architecture: its sizes as config.json has them, its tensors as safetensors do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from vllm_core.weights.transforms import Plain, Transform
from vllm_plugin_gguf.fields import Fields
from vllm_plugin_gguf.file import GgufFile, GgufTensor
from vllm_plugin_gguf.rope import FACTORS
from vllm_plugin_gguf.transforms import Share

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_PLAIN = Plain()

LLAMA_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LLAMA_LAYER = {
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
"""The names of most decoders' tensors, in GGUF and in safetensors."""


@attrs.frozen
class Stored:
    """A tensor of the file on its way to a name of the safetensors checkpoint."""

    tensor: GgufTensor
    transform: Transform = _PLAIN
    shift: float = 0.0  # added to each number


@attrs.frozen(kw_only=True)
class Architecture:
    """``config`` makes the fields of config.json; the rest says where tensors go.

    top      modules outside of the layers: in the file -> in the safetensors checkpoint
    layer    modules of a layer; several names: the tensor is cut into as many equal parts
    layers   where the layers stand
    stored   module -> how its rows or columns are rearranged, from the content of config.json
    shifted  suffix of tensors whose numbers the converter raised by 1
    tables   modules that are looked up by layers of their own and never multiplied: always dequantized
    """

    config: Callable[[Fields], dict[str, Any]]
    top: Mapping[str, str] = LLAMA_TOP
    layer: Mapping[str, str | tuple[str, ...]] = LLAMA_LAYER
    layers: str = "model.layers"
    stored: Callable[[Mapping[str, Any]], Mapping[str, Transform]] = lambda config: {}
    shifted: str = ""
    tables: frozenset[str] = frozenset()
    not_weights: frozenset[str] = frozenset({FACTORS})  # became part of the config

    def names(self, file: GgufFile, config: Mapping[str, Any]) -> dict[str, Stored]:
        """Name in the safetensors checkpoint -> tensor. Unknown ones keep theirs: weight rules will refuse them."""
        arranged = self.stored(config)
        found: dict[str, Stored] = {}
        for name, tensor in file.tensors.items():
            if name in self.not_weights:
                continue
            block = _BLOCK.fullmatch(name)
            inner, _, parameter = (block[2], "", block[3]) if block else name.rpartition(".")
            target = self.layer.get(inner) if block else self.top.get(inner)
            shift = -1.0 if self.shifted and name.endswith(self.shifted) else 0.0
            if target is None:
                found[name] = Stored(tensor)
                continue
            before = f"{self.layers}.{block[1]}." if block else ""
            if isinstance(target, tuple):
                for number, each in enumerate(target):
                    found[f"{before}{each}.{parameter}"] = Stored(tensor, Share(number, len(target)))
            else:
                found[f"{before}{target}.{parameter}"] = Stored(tensor, arranged.get(inner, _PLAIN), shift)
        return found
