"""The contract of sequence mixers' kernels: Mamba, linear attention, short convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.queries import MixerQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.define(slots=True, kw_only=True)
class MixerStep:
    """One step as a group of recurrent caches sees it: S sequences, T tokens, one after another.

    A state is read from one page and written to others: the page of the last token, those of
    checkpoints for prefix hits (chunks are cut there), and with drafts one page after each of
    the last W tokens, so that rejecting drafts means reading another page next time.
    """

    num_tokens: int  # T
    query_lens: Sequence[int]  # host, S entries, sum = T
    query_starts: Tensor  # int32 [S + 1]
    read: Tensor  # int64 [S], page of the state before the step; NULL_PAGE: start from zero
    write: Tensor  # int64 [S, W]; entry W - 1 after the last token; NULL_PAGE: not kept


class MixerKernel(Protocol):
    """Made once a layer."""

    def __init__(self, query: MixerQuery) -> None: ...

    def __call__(
        self, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor], states: Sequence[Tensor], step: MixerStep
    ) -> Tensor:
        """Mix T tokens and store their states; returns [T, ...], as the mixer's layer documents.

        inputs    the mixer's inputs, each [T, ...], by the names its layer documents.
        weights   parameters that are no matrix products: decay, convolution, ...
        states    a view [P, ...] for each tensor of the RecurrentCache, in its order.
        """
