"""What a layer with a recurrent state is given: views on its pages, and where a step reads and keeps states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from torch import Tensor

    from vllm_core.interfaces.batch import Batch


@attrs.define(slots=True, kw_only=True)
class StateStep:
    """One step as a group of recurrent caches sees it: S sequences, T tokens in all, sequence after sequence.

    A state is read from one page and kept in several: after the last token; with K drafts after each of the
    last K + 1 tokens, so that rejecting drafts means reading another page next time; and at every checkpoint,
    from which other requests with the same prefix go on. That makes C places a sequence, few of them used.
    Tensors are on the device. Read all states before any is kept: their pages may be the same.
    """

    num_tokens: int  # T
    query_lens: Sequence[int]  # host, S entries, sum = T
    longest_query: int  # tokens; the largest of them
    query_starts: Tensor  # int32 [S + 1]
    read: Tensor  # int64 [S], page of the state before the step; what lies there means nothing if ``begins``
    begins: Tensor  # bool [S]: the sequence starts here, from a state of zeros
    keep_after: Tensor  # int64 [S, C], after how many of its tokens in this step, at least 1 where used
    keep_in: Tensor  # int64 [S, C], the page; NULL_PAGE: not used, and whatever is written there is lost


class BoundState(Protocol):
    """What a layer keeps of ``Plan.state``."""

    states: tuple[Tensor, ...]  # a view [P, *shape] for each tensor of the RecurrentCache; new when pages are

    def of(self, batch: Batch) -> StateStep:
        """This layer's view of the step, made once for all layers of its group."""

    def before(self, batch: Batch) -> tuple[Tensor, ...]:
        """The states before the step, copied: [S, *shape] for each tensor, zeros where a sequence begins."""
