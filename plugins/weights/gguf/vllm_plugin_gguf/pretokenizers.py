"""How text is cut before byte-level BPE, by the names that GGUF files give (``tokenizer.ggml.pre``).

The names and patterns are those of llama.cpp (``llm_tokenizer_bpe`` in src/llama-vocab.cpp), which
took the patterns from each model's own tokenizer.json.
"""

from __future__ import annotations

from typing import Any

import attrs

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@attrs.frozen(kw_only=True)
class Pretokenizer:
    """The settings of a tokenizer.json that follow from the name."""

    pattern: str = ""  # pieces are its matches; "": GPT-2's own
    single_digits: bool = False  # each digit is cut off first
    normalizer: dict[str, Any] | None = None
    ignore_merges: bool = False  # a piece that is a token stays whole, whatever the merges say
    add_bos: bool = False  # unless the file says otherwise

    def content(self) -> dict[str, Any]:
        """The ``pre_tokenizer`` of a tokenizer.json."""
        steps: list[dict[str, Any]] = []
        if self.single_digits:
            steps.append({"type": "Digits", "individual_digits": True})
        if self.pattern:
            steps.append({"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False})
        steps.append(
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not self.pattern}
        )
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


_GPT2 = Pretokenizer()

PRETOKENIZERS = {
    "gpt-2": _GPT2,
    "default": _GPT2,
    "smollm": Pretokenizer(single_digits=True),
    "llama-bpe": Pretokenizer(
        pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", ignore_merges=True, add_bos=True
    ),
    "qwen2": Pretokenizer(pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}", normalizer={"type": "NFC"}),
}
