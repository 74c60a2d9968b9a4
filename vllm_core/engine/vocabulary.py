"""What each token id adds to a text, in bytes: read off the tokenizer's own tables where it has some."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vllm_core.interfaces.grammar import Vocabulary

__all__ = ["vocabulary_of"]

SPACE = "\u2581"  # stands for a space in tables of the SentencePiece kind


def vocabulary_of(tokenizer: Any, size: int, stop_ids: Sequence[int]) -> Vocabulary:
    """``size``: of the logits, which may be more than the tokenizer has tokens."""
    own = getattr(tokenizer, "token_bytes", None)
    special: dict[int, str] = {}
    if callable(own):
        table = dict(enumerate(own()))
    else:
        rust = getattr(getattr(tokenizer, "hf", None), "backend_tokenizer", None)
        table, special = _of_tables(rust) if rust is not None else ({}, {})
        table = table or dict(_by_decoding(tokenizer))
    found = [b""] * size
    for token, piece in table.items():
        if 0 <= token < size:
            found[token] = piece
    special = {token: name for token, name in special.items() if token < size}
    stops = tuple(token for token in stop_ids if token < size)
    return Vocabulary(size=size, token_bytes=found, stop_ids=stops, special=special)


def _of_tables(rust: Any) -> tuple[dict[int, bytes], dict[int, str]]:
    """({id: bytes}, {id: name} of special tokens); ({}, {}) if its decoder is of no kind that is known here."""
    told = json.loads(rust.to_str())
    parts = list(_flat(told.get("decoder")))
    kinds = {part.get("type") for part in parts}
    spaces = "Metaspace" in kinds or any(
        part.get("type") == "Replace" and part.get("pattern") == {"String": SPACE} for part in parts
    )
    added = {token["id"]: token for token in told.get("added_tokens") or ()}
    special = {i: str(token["content"]) for i, token in added.items() if token.get("special")}
    if "ByteLevel" in kinds:
        bytes_of = {char: byte for byte, char in enumerate(_byte_level())}
        convert: Callable[[str], bytes] = _ByteLevel(bytes_of)
    elif spaces or "ByteFallback" in kinds:
        convert = _Pieces(spaces, "ByteFallback" in kinds)
    else:
        return {}, {}
    table: dict[int, bytes] = {}
    for piece, token in rust.get_vocab(with_added_tokens=True).items():
        if token in special:
            table[token] = b""
        else:
            table[token] = piece.encode() if token in added else convert(piece)
    return table, special


class _ByteLevel:
    """Each character of a piece stands for a byte."""

    def __init__(self, bytes_of: Mapping[str, int]) -> None:
        self._bytes_of = bytes_of

    def __call__(self, piece: str) -> bytes:
        try:
            return bytes(map(self._bytes_of.__getitem__, piece))
        except KeyError:
            return piece.encode()


class _Pieces:
    """Pieces are text; some are single bytes, written <0x0A>."""

    def __init__(self, spaces: bool, byte_fallback: bool) -> None:
        self._spaces, self._byte_fallback = spaces, byte_fallback

    def __call__(self, piece: str) -> bytes:
        if self._byte_fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            try:
                return bytes([int(piece[3:5], 16)])
            except ValueError:
                pass
        return (piece.replace(SPACE, " ") if self._spaces else piece).encode()


def _flat(decoder: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(decoder, Mapping):
        yield decoder
        for part in decoder.get("decoders") or ():
            yield from _flat(part)


def _byte_level() -> list[str]:
    """The character that stands for each byte: itself if it is printable, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    chars, more = [], 256
    for byte in range(256):
        chars.append(chr(byte if byte in printable else more))
        more += byte not in printable
    return chars


def _by_decoding(tokenizer: Any) -> Iterator[tuple[int, bytes]]:
    """For tokenizers without such tables: what an id adds behind another one. Parts of characters are left out."""
    for anchor in (tokenizer.encode("a", add_special_tokens=False) or [0])[:1]:
        alone = tokenizer.decode([anchor], skip_special_tokens=True)
        for token in range(tokenizer.vocab_size):
            both = tokenizer.decode([anchor, token], skip_special_tokens=True)
            piece = both[len(alone) :] if both.startswith(alone) else ""
            yield token, b"" if "\ufffd" in piece else piece.encode()
