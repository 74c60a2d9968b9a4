"""The contract of draft proposers: guesses, made on the device, that the next step verifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from torch import Tensor


@attrs.define(slots=True, kw_only=True)
class RowView:
    """The device rows as a proposer may read them. R rows, L = room for tokens."""

    token_ids: Tensor  # int32 [R, L]; entries at and after num_tokens are undefined
    num_tokens: Tensor  # int32 [R], the token sampled last included


@attrs.define(slots=True, kw_only=True)
class Drafts:
    """``ids[i]`` are the guesses for the tokens after row i's last one."""

    ids: Tensor  # int32 [N, k]; -1 where there is no guess (never accepted)
    probs: Tensor | None = None  # float32 [N, k, V] that ids were drawn from; None: ids are certain
    parents: Tensor | None = None  # int32 [N, k] for a tree; None: a chain


class Proposer(Protocol):
    """Made once an engine: ``Target(num_drafts, config)``."""

    taps: tuple[int, ...]  # layers whose input hidden states it wants; () for none
    needs_hidden: bool  # whether it reads ``hidden``

    def __init__(self, num_drafts: int, config: Mapping[str, Any]) -> None: ...

    def bind(self, model: Any, plan: Any) -> None:
        """Called after the target model was bound and filled; may share its layers, declare caches."""

    def propose(self, rows: Tensor, view: RowView, hidden: Tensor | None, taps: Mapping[int, Tensor]) -> Drafts:
        """Draft ``num_drafts`` tokens for each of ``rows`` (int64 [N]), without synchronising.

        hidden   [N, H], the final hidden state at each row's last accepted position.
        taps     the same rows of the tapped layers.
        """
