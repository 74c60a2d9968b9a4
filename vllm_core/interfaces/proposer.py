"""The contract of draft proposers: guesses, made on the device, that the next step verifies.

A `Proposer` is asked after each step in which rows sampled. One that keeps caches of its own, such as
a second model, is a `FollowingProposer`: it runs behind every step, so that nothing of a prompt escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from vllm_core.interfaces.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

    from vllm_core.interfaces.batch import Batch
    from vllm_core.interfaces.model import Model


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


class ProposerPlan(Plan, Protocol):
    """What a proposer is bound to: a layer's plan, and models beside the one that is served."""

    max_model_len: int  # tokens of the longest sequence

    def second_model(self, name: str, model: str, *, revision: str | None = None, quantization: str = "") -> Model:
        """Another model, bound: found as the user's ``model`` is, chosen from its own config.json.

        Its layers and caches lie under ``name.``; its dtype, attention backends and lengths are the
        engine's. Its weights are read after those of the model that is served, and count in the
        memory plan. ``ValueError`` if it cannot take ``max_model_len`` tokens or its tokens are others.
        """


class Proposer(Protocol):
    """Made once an engine: ``Target(num_drafts, config)``."""

    taps: tuple[int, ...]  # layers whose input hidden states it wants; () for none
    needs_hidden: bool  # whether it reads ``hidden``

    def __init__(self, num_drafts: int, config: Mapping[str, Any]) -> None: ...

    def bind(self, model: Any, plan: Any) -> None:
        """Called once the target model is bound, before any weight is read; ``plan`` is a `ProposerPlan`.

        May share the model's layers and declare caches. In the parent both are on the meta device.
        """

    def propose(self, rows: Tensor, view: RowView, hidden: Tensor | None, taps: Mapping[int, Tensor]) -> Drafts:
        """Draft ``num_drafts`` tokens for each of ``rows`` (int64 [N]), without synchronising.

        hidden   [N, H], the final hidden state at each row's last accepted position.
        taps     the same rows of the tapped layers.
        """


@attrs.define(slots=True, kw_only=True)
class Pass:
    """T tokens of some rows, for a model."""

    ids: Tensor  # int64 [T]
    batch: Batch
    last: Tensor  # int64 [rows], which of the T is each row's last


class Follower(Protocol):
    """A step that has run and sampled, for those who go on from it. S rows ran, N of them sampled.

    Nothing here waits for the device: what the host is told are counts.
    """

    rows: Tensor  # int64 [S]
    sampling_rows: Tensor  # int64 [N]
    sampled: Tensor  # int64 [N], which of the S rows they are
    sampling: Sequence[int]  # the same on the host
    computed: Sequence[int]  # S, tokens of each row that were no drafts: a chunk of its prompt, or 1
    view: RowView  # after the step

    def batch(self, model: str, lengths: Sequence[int], *, ahead: int = 0, sampling_only: bool = False) -> Pass:
        """For a model of ``second_model``: the last ``lengths[i]`` tokens of each row.

        They end with the row's last known token if it sampled, else with the last of its prompt that
        the step computed. ``ahead`` > 0: so many tokens further on; ids that nobody knows yet are
        undefined there. ``sampling_only``: of the N rows that sampled, instead of all S.
        Positions beyond the row's end, which no draft can reach, repeat the last one.
        """

    def draw(self, logits: Tensor, ahead: int = 0) -> Tensor:
        """int64 [N]: what would be sampled behind the last known token, and ``ahead`` more, from logits [N, V].

        With each row's parameters, and the noise that the model served draws that token with: from
        equal logits comes the same token. Penalties and other changes to logits are not applied.
        """

    def guess(self, logits: Tensor, ahead: int = 0) -> tuple[Tensor, Tensor]:
        """The same with noise of its own, for ``Drafts.probs``: ids int64 [N], and probabilities float32 [N, V]."""


class FollowingProposer(Proposer, Protocol):
    """A proposer that sees every step; ``propose`` is never called.

    lookahead   tokens behind the last known one whose cache entries ``follow`` writes: the engine
                reserves pages for them
    """

    lookahead: int

    def follow(self, step: Follower) -> Drafts | None:
        """Keep caches up to date; drafts [N, num_drafts] for the rows that sampled. Never synchronises.

        Cache entries of positions before a row's last known token must be there afterwards: prefixes
        of the cache are shared between requests and pages outlive their first request. None where
        no row sampled.
        """
