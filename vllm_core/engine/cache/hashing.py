"""Names for cached prefixes: a chain of SHA-256 digests over a sequence's tokens.

The digest at length n stands for "exactly these n tokens, under this salt, with these adapters
and media". It is used in full as the key, so two prefixes share a digest only if SHA-256 collides.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from struct import pack

import attrs


@attrs.frozen
class ExtraKey:
    """Something beside the token ids that decides cache contents in ``[start, stop)``.

    An adapter covers the whole sequence; an image covers its placeholder tokens.
    """

    key: bytes  # a digest or name that identifies the content
    start: int = 0  # token position
    stop: int | None = None  # one past the last token; None: to the end


class PrefixChain:
    """Digests at every multiple of ``unit`` tokens, made when first asked for.

    ``tokens`` is the engine's own list, read and never changed here. Ids below a length that was
    asked for must not change afterwards, except after ``truncate``.
    """

    __slots__ = ("_digests", "_extras", "_root", "tokens", "unit")

    def __init__(self, unit: int, tokens: Sequence[int], *, salt: bytes = b"", extras: Sequence[ExtraKey] = ()) -> None:
        self.unit = unit  # tokens
        self.tokens = tokens
        self._root = sha256(pack("<Q", len(salt)) + salt).digest()
        self._extras = tuple(extras)
        self._digests: list[bytes] = []  # [i] is the digest of unit * (i + 1) tokens

    def at(self, length: int) -> bytes:
        """The digest of the first ``length`` tokens, a positive multiple of ``unit``."""
        count = length // self.unit
        if len(self._digests) < count:
            self._extend(count)
        return self._digests[count - 1]

    def every(self, step: int, length: int) -> list[bytes]:
        """The digests of ``step``, 2 * ``step``, ... tokens up to ``length``; ``step`` is a multiple of ``unit``."""
        count, each = length // self.unit, step // self.unit
        if len(self._digests) < count:
            self._extend(count)
        return self._digests[each - 1 : count : each]

    def truncate(self, length: int) -> None:
        """Forget what depends on tokens from position ``length`` on."""
        del self._digests[length // self.unit :]

    def learn(self, other: PrefixChain, length: int) -> None:
        """Take over the digests of another sequence that shares the first ``length`` tokens, salt and extras."""
        if other._root != self._root:
            raise ValueError("chains with different salts share no prefix")
        count = length // self.unit
        if count > len(self._digests):
            self._digests[:] = other._digests[:count]

    def _extend(self, count: int) -> None:
        """Make digests until there are ``count``. A long prompt has hundreds, so the loop does little."""
        digests, unit = self._digests, self.unit
        begin, end = len(digests) * unit, count * unit
        if end > len(self.tokens):
            raise ValueError(f"tokens {begin} to {end} are to be hashed, but only {len(self.tokens)} are known")
        ids = array("i", self.tokens[begin:end])
        data, size = ids.tobytes(), unit * ids.itemsize
        last = digests[-1] if digests else self._root
        for at in range(0, len(data), size):
            last += data[at : at + size]
            if self._extras:
                last += self._beside(begin + at // ids.itemsize)
            last = sha256(last).digest()
            digests.append(last)

    def _beside(self, start: int) -> bytes:
        """What the extra keys add to the block that begins at token ``start``."""
        stop, parts = start + self.unit, []
        for extra in self._extras:
            if extra.start < stop and (extra.stop is None or extra.stop > start):
                # Relative to the block: the same image one token later is another content.
                last = -1 if extra.stop is None else extra.stop - start
                parts.append(pack("<qqQ", extra.start - start, last, len(extra.key)) + extra.key)
        return b"".join(parts)
