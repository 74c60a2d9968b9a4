"""Stop strings in a text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Passes text through up to the first stop string.

    The first is the one that ends first, of those the longest, so that the result does not depend
    on how the text was cut into pieces. Text that may turn out to be the beginning of a stop
    string is held until that is certain.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include  # the stop string itself stays in the text
        self._held = ""

    def push(self, piece: str) -> tuple[str, str | None]:
        """(text that is now certain, the stop string met or None). After a stop nothing more may come."""
        text = self._held + piece
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            end, start, stop = min(ends)
            self._held = ""
            return text[: end if self._include else start], stop
        hold = max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold], None

    def flush(self) -> str:
        """What was held, when the text has ended without a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Characters at the end of ``text`` that begin ``stop``."""
        for size in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:size]):
                return size
        return 0
