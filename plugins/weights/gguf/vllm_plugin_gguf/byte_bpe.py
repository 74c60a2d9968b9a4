"""Byte-level BPE, GGUF's tokenizer model "gpt2", as the content of a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.pretokenizers import BY_ARCHITECTURE, PRETOKENIZERS, Pretokenizer
from vllm_plugin_gguf.special_tokens import PREFIX, added_tokens, frame


def byte_bpe(m: Mapping[str, Any], path: object, remedy: str) -> dict[str, Any]:
    pre = _cut(m, path, remedy)
    return {
        "version": "1.0",
        "added_tokens": added_tokens(m),
        "normalizer": pre.normalizer,
        "pre_tokenizer": pre.content(),
        "post_processor": frame(m, add_bos=pre.add_bos),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": {token: i for i, token in enumerate(m[f"{PREFIX}tokens"])},
            "merges": m[f"{PREFIX}merges"],  # "left right": byte-level tokens hold no space
        },
    }


def _cut(m: Mapping[str, Any], path: object, remedy: str) -> Pretokenizer:
    name = m.get(f"{PREFIX}pre", BY_ARCHITECTURE.get(m.get("general.architecture", "")))
    if name is None:
        raise CheckpointError(
            f"{path} does not say how text is split before BPE ({PREFIX}pre), as files from before May 2024"
            f" do not\n{remedy}\n  or write it into the file: gguf-new-metadata --pre-tokenizer NAME OLD NEW,"
            f" NAME one of {', '.join(PRETOKENIZERS)}"
        )
    if name not in PRETOKENIZERS:
        raise CheckpointError(
            f"{path} splits text by the pre-tokenizer {name!r}; known: {', '.join(PRETOKENIZERS)}\n{remedy}"
        )
    if f"{PREFIX}merges" not in m:
        raise CheckpointError(f"{path} has no merges ({PREFIX}merges) for its byte-level BPE\n{remedy}")
    return PRETOKENIZERS[name]
