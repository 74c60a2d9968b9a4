"""A vocabulary as llguidance reads one."""

from __future__ import annotations

from vllm_core.interfaces.grammar import Vocabulary

__all__ = ["Tokens"]


class Tokens:
    """What the library's ``TokenizerWrapper`` has. Called with bytes it gives tokens of them, the longest first.

    The library asks for tokens of text that must follow; any that make up the text will do.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.stop_ids[0]
        self.tokens = list(vocabulary.token_bytes)
        for token, name in vocabulary.special.items():
            self.tokens[token] = name.encode()
        for token in vocabulary.stop_ids:  # a stop token that is no special one: its text is not text of an output
            if token not in vocabulary.special:
                self.tokens[token] = b"<|stop %d|>" % token
        self.special_token_ids = sorted({*vocabulary.special, *vocabulary.stop_ids})
        self._ids: dict[bytes, int] = {}
        for token, piece in enumerate(vocabulary.token_bytes):
            if piece and token not in vocabulary.stop_ids:
                self._ids.setdefault(piece, token)
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        found, at = [], 0
        while at < len(data):
            for size in range(min(self._longest, len(data) - at), 0, -1):
                token = self._ids.get(data[at : at + size])
                if token is not None:
                    found.append(token)
                    at += size
                    break
            else:
                return found  # no token has this byte
        return found

    def _encode_string(self, text: str) -> list[int]:
        return self(text)
