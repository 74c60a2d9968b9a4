"""The contract of logits processors: changes to logits before tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.proposer import RowView
from vllm_core.interfaces.queries import LogitsProcessorQuery

if TYPE_CHECKING:
    from torch import Tensor


class LogitsProcessor(Protocol):
    """Made once an engine, where steps run; keeps what it needs a row in device tensors of ``max_rows`` entries."""

    keeps_argmax: bool  # the largest logit stays the largest: rows of temperature 0 are left out
    needs_ids: bool  # reads ids on the host: sampling then waits for the last step's, the forward pass does not

    def __init__(self, query: LogitsProcessorQuery) -> None: ...

    @classmethod
    def check(cls, params: Mapping[str, Any], query: LogitsProcessorQuery) -> bool:
        """Whether a request with these parameters is affected. ``ValueError``: they are wrong.

        params   the request's ``extra_args``; those of other processors are among them

        Asked of the class, in the process that prepares requests: it makes no tensors.
        """

    def take(self, row: int, params: Mapping[str, Any], prompt_ids: Sequence[int]) -> None:
        """A request that is affected takes a row: set all that is remembered for it.

        After a preemption this is called again, maybe with another row: outputs are read from
        ``view`` or ``ids``, not counted in ``apply``.
        """

    def apply(
        self, logits: Tensor, rows: Tensor, ends: Tensor, view: RowView, ids: Sequence[Sequence[int]] | None
    ) -> Tensor:
        """Change logits float32 [N, V] of affected rows, in place or not; returns [N, V]. Never synchronises.

        A line that comes back with no token left (all -inf) is taken as it was before.

        rows   int64 [N], the row of each line; a row whose drafts are verified has several lines.
        ends   int64 [N], tokens before the one that the line draws, drafts before it included:
               they are ``view.token_ids[row, :end]``.
        view   the device rows, for processors that read tokens there; -1 stands for no guess.
        ids    the output ids before the token that each line draws, on the host; None unless ``needs_ids``.
        """
