"""The tokenizer of a GGUF file, as the content of a tokenizer.json and a tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.pretokenizers import PRETOKENIZERS, Pretokenizer

_PREFIX = "tokenizer.ggml."
_REMEDY = "  take the tokenizer of the same model from elsewhere: --tokenizer FOLDER-OR-HUB-ID"
_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # of tokenizer.ggml.token_type
_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad", "seperator": "sep", "mask": "mask"}


def special_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``bos_token_id`` and the like; ``eos_token_id`` is a list where a turn's end is another token."""
    found = {
        f"{role}_token_id": metadata[f"{_PREFIX}{key}_token_id"]
        for key, role in _ROLES.items()
        if f"{_PREFIX}{key}_token_id" in metadata and role in ("bos", "eos", "unk", "pad")
    }
    ends = [metadata[k] for k in (f"{_PREFIX}eos_token_id", f"{_PREFIX}eot_token_id") if k in metadata]
    if len(set(ends)) > 1:
        found["eos_token_id"] = ends
    return found


def tokenizer_files(file: GgufFile) -> TokenizerFiles | None:
    """None if the file holds no vocabulary."""
    m = file.metadata
    if f"{_PREFIX}tokens" not in m:
        return None
    model = m.get(f"{_PREFIX}model")
    if model != "gpt2":
        kind = f"{model!r} (SentencePiece)" if model == "llama" else repr(model)
        raise CheckpointError(
            f"{file.path} has a tokenizer of the kind {kind}; read are: gpt2 (byte-level BPE)\n{_REMEDY}"
        )
    pre = m.get(f"{_PREFIX}pre")
    if pre is None:
        raise CheckpointError(
            f"{file.path} does not say how text is split before BPE ({_PREFIX}pre), as files from before May 2024"
            f" do not\n{_REMEDY}\n  or write it into the file: gguf-new-metadata --pre-tokenizer NAME OLD NEW,"
            f" NAME one of {', '.join(PRETOKENIZERS)}"
        )
    if pre not in PRETOKENIZERS:
        raise CheckpointError(
            f"{file.path} splits text by the pre-tokenizer {pre!r}; known: {', '.join(PRETOKENIZERS)}\n{_REMEDY}"
        )
    content = _bpe(m, PRETOKENIZERS[pre])
    return TokenizerFiles(tokenizer_json=json.dumps(content, ensure_ascii=False), settings=_settings(m))


def _bpe(m: Mapping[str, Any], pre: Pretokenizer) -> dict[str, Any]:
    tokens = m[f"{_PREFIX}tokens"]
    return {
        "version": "1.0",
        "added_tokens": _added(m),
        "normalizer": pre.normalizer,
        "pre_tokenizer": pre.content(),
        "post_processor": _frame(m, pre),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": m[f"{_PREFIX}merges"],  # "left right": byte-level tokens hold no space
        },
    }


def _added(m: Mapping[str, Any]) -> list[dict[str, Any]]:
    tokens, kinds = m[f"{_PREFIX}tokens"], m.get(f"{_PREFIX}token_type", ())
    return [
        {
            "id": i,
            "content": tokens[i],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != _USER,
        }
        for i, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER, _UNKNOWN)
    ]


def _frame(m: Mapping[str, Any], pre: Pretokenizer) -> dict[str, Any] | None:
    """Tokens put before and after a text."""
    tokens = m[f"{_PREFIX}tokens"]
    sides = []
    for role, default in (("bos", pre.add_bos), ("eos", False)):
        wanted = m.get(f"{_PREFIX}add_{role}_token", default)
        sides.append(m.get(f"{_PREFIX}{role}_token_id") if wanted else None)
    if sides == [None, None]:
        return None
    before, after = [[] if i is None else [{"SpecialToken": {"id": tokens[i], "type_id": 0}}] for i in sides]
    return {
        "type": "TemplateProcessing",
        "single": [*before, {"Sequence": {"id": "A", "type_id": 0}}, *after],
        "pair": [*before, {"Sequence": {"id": "A", "type_id": 0}}, *after, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in sides if i is not None
        },
    }


def _settings(m: Mapping[str, Any]) -> dict[str, Any]:
    tokens = m[f"{_PREFIX}tokens"]
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, role in _ROLES.items():
        i = m.get(f"{_PREFIX}{key}_token_id")
        if i is not None and 0 <= i < len(tokens):
            settings[f"{role}_token"] = tokens[i]
    if template := m.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    length = m.get(f"{m.get('general.architecture')}.context_length")
    if length:
        settings["model_max_length"] = length
    return settings
