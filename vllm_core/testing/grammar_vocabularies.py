"""Small vocabularies of the kinds that models have, for grammars to be tried on."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_core.interfaces.grammar import Vocabulary

__all__ = ["segmentations", "vocabularies"]

WORDS = (
    '{"', '":', '": ', '", "', '"}', '{"a', '":1', "],", "[[", "}}", "  ", "\n  ", "\n", "ab", "abc", "yes", "es",
    " no", "true", "null", "12", "123", "-1", "0.", "e1", "é", "日本", "日", '\\"', "\\u", "name", '"name', "age", "x=",
    "<f", "</f>",
)  # fmt: skip
"""Tokens of several characters: such as end and begin parts of a grammar in their middle."""

PARTS = ("日".encode()[:2], "é".encode()[:1], "日本".encode()[1:4])
"""Tokens that end within a character."""


def vocabularies() -> dict[str, Vocabulary]:
    """By what is special about each."""
    every_byte = [bytes([byte]) for byte in range(256)]
    words = [word.encode() for word in WORDS]
    return {
        # Special tokens first, one end of text, a size that is no multiple of 32.
        "byte level": _make(
            [b"", b"", *every_byte, *words, *PARTS], stops=(1,), special={0: "<|begin|>", 1: "<|end|>"}
        ),
        # Each byte is there twice, once as a piece and once as a fallback, and spaces begin words.
        "byte fallback": _make(
            [b"", b"", b"", *every_byte, *every_byte, *words, b" yes", b" ab"],
            stops=(2,),
            special={0: "<unk>", 1: "<s>", 2: "</s>"},
        ),
        # Two ends of text behind the others, special tokens among them, and more logits than tokens.
        "padded": _make([*every_byte, *words, b"", b"", b""], stops=(-3, -1), padding=75, special={-2: "<|tool|>"}),
    }


def _make(
    pieces: list[bytes], *, stops: tuple[int, ...], special: dict[int, str] | None = None, padding: int = 0
) -> Vocabulary:
    count = len(pieces)
    names = {token % count: name for token, name in (special or {}).items()}
    return Vocabulary(
        size=count + padding,
        token_bytes=pieces + [b""] * padding,
        stop_ids=tuple(sorted(token % count for token in stops)),
        special=names,
    )


def segmentations(vocabulary: Vocabulary, text: str) -> Iterator[list[int]]:
    """Ids of a text in three ways: a byte each, the longest tokens, and every other one."""
    ids: dict[bytes, list[int]] = {}
    for token, piece in enumerate(vocabulary.token_bytes):
        if piece:
            ids.setdefault(piece, []).append(token)
    longest = max(map(len, ids))
    for reach in (1, longest, 3):
        data, at = text.encode(), 0
        found: list[int] = []
        while at < len(data):
            size = next(n for n in range(min(reach, len(data) - at), 0, -1) if data[at : at + n] in ids)
            known = ids[data[at : at + size]]
            found.append(known[len(found) % len(known)])
            at += size
        yield found
