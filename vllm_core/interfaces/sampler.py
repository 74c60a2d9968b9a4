"""The contract of samplers: tokens from logits, on the device, without state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.queries import SamplerQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.define(slots=True, kw_only=True)
class SamplingTensors:
    """Parameters of N rows of logits."""

    temperature: Tensor  # float32 [N]; 0: the largest logit wins
    top_k: Tensor  # int32 [N]; 0: all
    top_p: Tensor  # float32 [N] in (0, 1]
    noise: Tensor  # float32 [N] in [0, 1): made from the row's seed and the token's position
    all_greedy: bool  # host facts, so that work can be left out without asking the device
    any_top_k: bool
    any_top_p: bool


class Sampler(Protocol):
    """Made once an engine."""

    def __init__(self, query: SamplerQuery) -> None: ...

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        """Draw one token a row: logits float32 [N, V] (may be overwritten) -> int32 [N].

        The tokens kept by top-k and then top-p, with temperature applied first, form a
        distribution; the token is the first, in order of ids, whose cumulative probability
        exceeds ``noise``. So the same logits, parameters and noise give the same token in any
        batch. Ties for the largest logit go to the smallest id.
        """

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        """The distribution that ``__call__`` draws from: float32 [N, V]. Needed to verify drafts."""
