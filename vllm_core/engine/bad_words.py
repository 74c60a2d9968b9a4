"""Words that must not appear, as token sequences."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["bad_word_ids"]

LONGEST = 32  # tokens


def bad_word_ids(words: Sequence[str], tokenizer: Tokenizer | None) -> list[list[int]]:
    """Each word as it is tokenized at the start of a text and, if that differs in its first token only
    by a space, in the middle of one: as vLLM does. ``ValueError`` names the word that is wrong."""
    if words and tokenizer is None:
        raise ValueError("bad_words are text, and skip_tokenizer_init leaves no tokenizer; use logit_bias")
    found: list[list[int]] = []
    for word in words:
        assert tokenizer is not None
        start = tokenizer.encode(word.lstrip(), add_special_tokens=False)
        middle = tokenizer.encode(" " + word.lstrip(), add_special_tokens=False)
        if not start:
            raise ValueError(f"{word!r} in bad_words has no tokens")
        found.append(start)
        if middle and middle[0] != start[0] and len(middle) == len(start):
            found.append(middle)
        if len(start) > LONGEST:
            raise ValueError(f"{word[:40]!r} in bad_words has {len(start)} tokens; at most {LONGEST} are possible")
    return found
