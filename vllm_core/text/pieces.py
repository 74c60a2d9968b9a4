"""Text that comes in pieces, as a parser wants it: in one stretch.

A parser is a generator over ``Pieces``. It reads as if the whole text were there, and where it
must know more, ``yield from`` waits for the next piece. A marker may be cut anywhere: what could
be its beginning is held back, and nothing else is.

Each character is looked at a bounded number of times, however the text is cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["Pieces", "Reading", "hides"]

T = TypeVar("T")
Reading = Generator[None, None, T]
"""What waits for text at each ``yield`` and returns a ``T``."""

_SPACE = re.compile(r"\s*")


class Pieces:
    """What has come and is not read yet; ``push`` and ``close`` are the driver's, the rest the parser's."""

    def __init__(self) -> None:
        self._text, self._at, self._over = "", 0, False
        self._kept: list[str] | None = None

    def push(self, text: str) -> None:
        self._text, self._at = self._text[self._at :] + text, 0

    def close(self) -> None:
        """No more will come: who waits for more gets "" from now on."""
        self._over = True

    def peek(self) -> Reading[str]:
        """The next character, left where it is; "" at the end."""
        while self._at == len(self._text) and not self._over:
            yield
        return self._text[self._at : self._at + 1]

    def take(self) -> str:
        """All that is here."""
        return self._pass(len(self._text))

    def read(self, scan: Callable[[str, int], int]) -> None:
        """Let ``scan(text, start)`` read of what is here; it says where it stopped."""
        self._pass(scan(self._text, self._at))

    def run(self, pattern: re.Pattern[str], most: int | None = None) -> Reading[str]:
        """Characters as long as they match: ``pattern`` looks like ``[...]*``. ``most``: no more than so many."""
        found: list[str] = []
        size = 0
        while (yield from self.peek()):
            limit = len(self._text) if most is None else min(len(self._text), self._at + most - size)
            match = pattern.match(self._text, self._at, limit)
            end = self._at if match is None else match.end()
            if end == self._at:
                break
            size += end - self._at
            found.append(self._pass(end))
        return "".join(found)

    def space(self) -> Reading[str]:
        """White space, if there is any."""
        return (yield from self.run(_SPACE))

    def ahead(self, marker: str) -> Reading[bool]:
        """Whether the text goes on with ``marker``, which is left where it is."""
        while not self._over and len(here := self._text[self._at : self._at + len(marker)]) < len(marker):
            if not marker.startswith(here):
                return False
            yield
        return self._text.startswith(marker, self._at)

    def passes(self, marker: str) -> Reading[bool]:
        """Whether the text goes on with ``marker``; if so, go past it."""
        found = yield from self.ahead(marker)
        if found:
            self._pass(self._at + len(marker))
        return found

    def until(self, markers: Sequence[str], give: Callable[[str], object]) -> Reading[str]:
        """Go past the first of ``markers`` and return it; "" if there is none.

        give   gets the text before, as soon as it is certain
        """
        pattern = _any_of(tuple(markers))
        while True:
            found = pattern.search(self._text, self._at)
            end = found.start() if found else len(self._text) - (0 if self._over else self._begun(markers))
            if end > self._at:
                give(self._pass(end))
            if found:
                self._pass(found.end())
                return found.group()
            if self._over:
                return ""
            yield

    def keep(self) -> None:
        """Remember what is read from here on."""
        self._kept = []

    def kept(self) -> str:
        """What was read since ``keep``, which ends here."""
        text, self._kept = "".join(self._kept or ()), None
        return text

    def _pass(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        if self._kept is not None:
            self._kept.append(text)
        return text

    def _begun(self, markers: Sequence[str]) -> int:
        """How many of the last characters may be the beginning of a marker."""
        longest = min(max(map(len, markers)) - 1, len(self._text) - self._at)
        for size in range(longest, 0, -1):
            tail = self._text[-size:]
            if any(marker.startswith(tail) for marker in markers):
                return size
        return 0


@lru_cache(256)
def _any_of(markers: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(marker) for marker in sorted(markers, key=len, reverse=True)))


def hides(tokenizer: Tokenizer, markers: Sequence[str]) -> bool:
    """Whether one of the markers is a special token: an output without special tokens lacks it."""
    for marker in markers:
        ids = tokenizer.encode(marker, add_special_tokens=False)
        if marker not in tokenizer.decode(ids, skip_special_tokens=True):
            return marker in tokenizer.decode(ids, skip_special_tokens=False)
    return False
