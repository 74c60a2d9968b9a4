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
_GPT2_NFC = Pretokenizer(normalizer={"type": "NFC"})  # of GPT-NeoX 20B, whose tokenizer MPT and OLMo took
_DIGITS = Pretokenizer(single_digits=True)
_CL100K = Pretokenizer(pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}")
_LLAMA3 = attrs.evolve(_CL100K, ignore_merges=True, add_bos=True)
_QWEN2 = Pretokenizer(pattern=rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}", normalizer={"type": "NFC"})
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = Pretokenizer(
    pattern=rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASHED}",
    ignore_merges=True,
    add_bos=True,
)
_O200K = Pretokenizer(
    pattern=rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_SLASHED}"
)

PRETOKENIZERS = {
    **dict.fromkeys(("gpt-2", "default", "phi-2", "gigachat", "mellum"), _GPT2),
    **dict.fromkeys(("mpt", "olmo"), _GPT2_NFC),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _CL100K),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4"), _O200K),
    "tekken": _TEKKEN,
}

BY_ARCHITECTURE = {"gpt2": "gpt-2", "phi2": "gpt-2"}
"""Architectures with one tokenizer, whose older files do not name it."""
