"""What metadata says of special tokens: their ids, the tokens that are never split, and those around a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6  # of tokenizer.ggml.token_type
_ROLES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad", "seperator": "sep", "mask": "mask"}


def special_ids(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``bos_token_id`` and the like; ``eos_token_id`` is a list where a turn's end is another token."""
    found = {
        f"{role}_token_id": metadata[f"{PREFIX}{key}_token_id"]
        for key, role in _ROLES.items()
        if f"{PREFIX}{key}_token_id" in metadata and role in ("bos", "eos", "unk", "pad")
    }
    ends = [metadata[k] for k in (f"{PREFIX}eos_token_id", f"{PREFIX}eot_token_id") if k in metadata]
    if len(set(ends)) > 1:
        found["eos_token_id"] = ends
    return found


def added_tokens(m: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ``added_tokens`` of a tokenizer.json: those that are found whole before text is cut."""
    tokens, kinds = m[f"{PREFIX}tokens"], m.get(f"{PREFIX}token_type", ())
    return [
        {
            "id": i,
            "content": tokens[i],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER,
        }
        for i, kind in enumerate(kinds)
        if kind in (CONTROL, USER, UNKNOWN)
    ]


def frame(m: Mapping[str, Any], *, add_bos: bool) -> dict[str, Any] | None:
    """The ``post_processor``: tokens put before and after a text. ``add_bos``: unless the file says otherwise."""
    tokens = m[f"{PREFIX}tokens"]
    sides = []
    for role, default in (("bos", add_bos), ("eos", False)):
        wanted = m.get(f"{PREFIX}add_{role}_token", default)
        sides.append(m.get(f"{PREFIX}{role}_token_id") if wanted else None)
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


def tokenizer_settings(m: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a tokenizer_config.json."""
    tokens = m[f"{PREFIX}tokens"]
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, role in _ROLES.items():
        i = m.get(f"{PREFIX}{key}_token_id")
        if i is not None and 0 <= i < len(tokens):
            settings[f"{role}_token"] = tokens[i]
    if template := m.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    length = m.get(f"{m.get('general.architecture')}.context_length")
    if length:
        settings["model_max_length"] = length
    return settings
