"""The contract of poolers: hidden states to one result a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from vllm_core.interfaces.queries import PoolerQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.define(slots=True, kw_only=True)
class PoolStep:
    """Which tokens of a step belong to which row: S rows, T tokens, one after another."""

    rows: Tensor  # int64 [S]
    query_starts: Tensor  # int32 [S + 1]
    first: Tensor  # bool [S], the prompt begins in this step
    last: Tensor  # bool [S], the prompt ends in this step
    token_ids: Tensor  # int32 [T]


class Pooler(Protocol):
    """Made once an engine and task; keeps sums of unfinished prompts a row, on the device."""

    def __init__(self, query: PoolerQuery, max_rows: int) -> None: ...

    def bind(self, model: Any, plan: Any) -> None:
        """Called after the model was bound; may make parameters, or use the model's."""

    def check(self, params: Mapping[str, Any]) -> None:
        """A request's parameters (dimensions, activation). ``ValueError`` if they are wrong."""

    def pool(self, hidden: Tensor, step: PoolStep) -> Tensor:
        """hidden [T, H] -> float32 [S, D]; lines of rows that do not end here are undefined.

        Poolers that give a result a token return [T, D] and set ``per_token``.
        """

    per_token: bool
    size: int  # D
