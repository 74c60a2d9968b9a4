"""What a model sees of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from torch import Tensor

    from vllm_core.interfaces.attention import AttentionStep


@attrs.define(slots=True, kw_only=True)
class Batch:
    """T tokens of S sequences, sequence after sequence. Models read positions and pass it on."""

    num_tokens: int  # T
    positions: Tensor  # int64 [T], or [A, T] for rotary embeddings with A axes
    attention: list[AttentionStep]  # one a cache group
    metadata: list[Any]  # one a cache group, from AttentionBackend.begin_step
    taps: dict[int, Tensor] = attrs.field(factory=dict)  # hidden states [T, H] before layer i, if asked for
    media: Any = None  # embeddings to merge; None for text
    shared: dict[Any, Any] = attrs.field(factory=dict)  # what layers compute once a step, e.g. a rotary table's rows
