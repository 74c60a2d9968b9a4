"""Where in an output a grammar begins: behind the reasoning, which a parser finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vllm_core.interfaces.reasoning_parser import ReasoningParser

__all__ = ["ReasoningGate"]


class ReasoningGate:
    """``look`` with all output ids so far, as they grow, until it gives a place.

    make   a parser of the request's
    """

    def __init__(self, make: Callable[[], ReasoningParser], prompt_ids: Sequence[int]) -> None:
        self._make, self._prompt_ids = make, prompt_ids
        self._parser = self._new()
        self._seen = 0  # output ids

    def look(self, output_ids: Sequence[int]) -> int | None:
        """The first id that the grammar is about; None: the reasoning goes on."""
        seen, self._seen = self._seen, len(output_ids)
        if not self._parser.ended(output_ids):
            return None
        # It ended somewhere among the new ones: many of them, if the row was taken again.
        low, high = seen, len(output_ids)
        while low < high:
            middle = (low + high) // 2
            if self._new().ended(output_ids[:middle]):
                high = middle
            else:
                low = middle + 1
        return low

    def _new(self) -> ReasoningParser:
        parser = self._make()
        parser.starts_inside(self._prompt_ids)
        return parser
