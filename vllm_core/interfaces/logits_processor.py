"""The contract of logits processors: changes to logits before tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.proposer import RowView
from vllm_core.interfaces.queries import LogitsProcessorQuery

if TYPE_CHECKING:
    from torch import Tensor


class LogitsProcessor(Protocol):
    """Made once an engine; keeps what it needs a row in device tensors of ``max_rows`` entries."""

    keeps_argmax: bool  # the largest logit stays the largest: greedy rows can leave it out
    needs_ids: bool  # reads ids on the host: the rows' sampling then waits for the last step

    def __init__(self, query: LogitsProcessorQuery) -> None: ...

    def check(self, params: Mapping[str, Any]) -> bool:
        """Whether a request with these parameters is affected. ``ValueError``: they are wrong.

        Called in the process that renders prompts, before the request is queued.
        """

    def take(self, row: int, params: Mapping[str, Any], prompt_ids: Sequence[int]) -> None:
        """A request takes a row: set all that is remembered for it."""

    def apply(self, logits: Tensor, rows: Tensor, view: RowView, ids: Sequence[Sequence[int]] | None) -> Tensor:
        """Change logits float32 [N, V], in place or not; returns [N, V]. Never synchronises.

        rows   int64 [N], the row of each line; a row with drafts has several lines.
        view   the device rows, for processors that read tokens there.
        ids    the rows' output ids on the host if ``needs_ids``, else None.
        """
