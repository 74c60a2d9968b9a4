"""The contract of samplers: tokens from logits, on the device, without state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.queries import SamplerQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class SamplingTensors:
    """Parameters of N lines of logits. A row whose drafts are verified has several lines."""

    temperature: Tensor  # float32 [N]; 0: the largest logit wins
    top_k: Tensor  # int64 [N]; 0: all
    top_p: Tensor  # float32 [N] in (0, 1]
    min_p: Tensor  # float32 [N] in [0, 1]
    noise: Tensor  # float64 [N] in [0, 1): made from the row's seed and the token's position

    # Facts that the host knows, so that work nobody asks for is left out without asking the device. Of a call that is
    # captured into a graph they hold whenever it runs, so there they say what lines may ask for.
    any_greedy: bool
    any_random: bool
    largest_top_k: int  # 0: nobody uses top-k
    any_top_p: bool
    any_min_p: bool


class Sampler(Protocol):
    """Made once an engine, in each process where steps run. Never synchronises with the host."""

    def __init__(self, query: SamplerQuery) -> None: ...

    def __call__(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        """Draw one token a line: logits [N, V] of any float dtype (not to be changed) -> int64 [N].

        Temperature is applied first. Then min_p drops tokens of less than its share of the likeliest
        one's probability, top_k all but the k likeliest of the rest, top_p all but the fewest that
        hold its share of what is left. The token is the first, in order of ids, whose cumulative
        probability exceeds ``noise``. So the same logits, parameters and noise give the same token
        in any batch. Ties for the largest logit go to the smallest id.
        """

    def probs(self, logits: Tensor, params: SamplingTensors) -> Tensor:
        """The distribution that ``__call__`` draws from: float32 [N, V]; lines of temperature 0 have
        all of it on one token. Needed to verify drafts that come with probabilities."""
