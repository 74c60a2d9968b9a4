"""Ids to text, piece by piece, each piece final.

A token's text depends on its neighbours: a character may span tokens, and a decoder may drop the
space before its first token. So a short window of tokens is decoded again with each new one, and
what it added is the new piece; while it ends in half a character, nothing is given out. The
window starts in the prompt, so the pieces continue the prompt's text.

The pieces add up to the decoding of the whole, with one exception that no stream can avoid: a
SentencePiece tokenizer with byte fallback decodes a *run* of byte tokens together, so an invalid
byte late in a run would change characters before it that have already been given out.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["Detokenizer"]

CONTEXT = 6  # tokens before the next one, so that it is decoded as what it is: not the first
WINDOW = 12  # tokens decoded before the window moves: a longer one moves less often and decodes longer
LONGEST_WAIT = 16  # tokens without text; a character has at most four, so these are no character

HALF = "\ufffd"  # what decoders give for bytes that are no character (yet)


class Detokenizer:
    """One request's text. ``push`` each output token, then ``flush``. Amortised O(1) a token."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._tight = not (skip_special_tokens or spaces_between_special_tokens)
        self._after_special = False
        tail = self._tail(prompt_token_ids[-WINDOW:])
        self._window, text = ([], "") if tail is None else tail
        self._given = len(self._window)  # tokens whose text is out
        # A prompt of ids may end in half a character: then its completion belongs to the output.
        self._text = text.rstrip(HALF)
        self._pushed = False

    def push(self, token_id: int) -> str:
        """The text that has become certain, possibly none."""
        window = self._window
        window.append(token_id)
        self._pushed = True
        text = self._decode(window)
        if text.endswith(HALF) or len(text) <= len(self._text):
            if len(window) - self._given <= LONGEST_WAIT:
                return ""
            if text == self._text:  # special tokens, left out of the text
                del window[self._given :]
                return ""
            text = text.removesuffix(HALF)  # the others are no characters; the last may become one
        piece = text[len(self._text) :]
        if self._tight:
            special = self._tokenizer.decode([token_id], skip_special_tokens=True) == ""
            if special and self._after_special:
                piece = piece.lstrip(" ")
            self._after_special = special
        self._text, self._given = text, len(window)
        if len(window) > WINDOW:
            self._move()
        return piece

    def flush(self) -> str:
        """The rest, at the end of the request: half a character comes out as the decoder renders it."""
        return self._decode(self._window)[len(self._text) :] if self._pushed else ""

    def _move(self) -> None:
        """Forget tokens whose text is out, down to those that what comes may depend on."""
        tail = self._tail(self._window)
        if tail is None and len(self._window) > 3 * WINDOW:  # nothing but broken bytes
            tail = self._window[-CONTEXT:], self._decode(self._window[-CONTEXT:])
        if tail is not None:
            self._window, text = tail
            self._text, self._given = text.removesuffix(HALF), len(self._window)

    def _tail(self, ids: Sequence[int]) -> tuple[list[int], str] | None:
        """The last few tokens and their text, if there is a place to cut that is not within a character."""
        for size in range(CONTEXT, min(len(ids), CONTEXT + 4) + 1):
            tail = list(ids[-size:])
            text = self._decode(tail)
            if text and text[0] != HALF:
                return tail, text
        if len(ids) <= CONTEXT:
            return (list(ids), self._decode(list(ids))) if ids else None
        return None

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)
