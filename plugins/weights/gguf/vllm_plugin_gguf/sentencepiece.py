"""SentencePiece's BPE with bytes to fall back on, GGUF's tokenizer model "llama", as the content of a tokenizer.json.

The form is that of Llama 2's own tokenizer.json. GGUF has no merges but a score for each token:
of two neighbours whose union is a token, those with the highest score join first. That is BPE
with a merge for each cut of each token, in the order of the tokens' scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.special_tokens import BYTE, NORMAL, PREFIX, added_tokens, frame

SPACE = "\u2581"


def sentencepiece(m: Mapping[str, Any], path: object, remedy: str) -> dict[str, Any]:
    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    tokens, scores, kinds = (m.get(f"{PREFIX}{key}", []) for key in ("tokens", "scores", "token_type"))
    for key, found in (("scores", scores), ("token_type", kinds)):
        if len(found) != len(tokens):
            raise CheckpointError(
                f"{path} has {len(tokens)} tokens and {len(found)} entries in {PREFIX}{key}\n{remedy}"
            )
    prefix = m.get(f"{PREFIX}add_space_prefix", True)  # a text begins with a space that is not there
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    unknown = m.get(f"{PREFIX}unknown_token_id")
    return {
        "version": "1.0",
        "added_tokens": added_tokens(m),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces] if prefix else [spaces],
        },
        "pre_tokenizer": None,
        "post_processor": frame(m, add_bos=True),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                back,
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": None if unknown is None else tokens[unknown],
            "fuse_unk": True,
            "byte_fallback": BYTE in kinds,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": _merges(tokens, scores, kinds),
        },
    }


def _merges(tokens: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Every cut of every normal token into two, the tokens of the highest score first."""
    known = {token: i for i, token in enumerate(tokens) if kinds[i] == NORMAL}
    found = []
    for token, i in known.items():
        for at in range(1, len(token)):
            left, right = known.get(token[:at]), known.get(token[at:])
            if left is not None and right is not None:
                found.append((-scores[i], i, left, right))
    found.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in found]
