"""The contract of model processors: prompts with media to tokens with placeholders. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np

from vllm_core.interfaces.media import EncoderInput
from vllm_core.interfaces.tokenizer import Tokenizer


@attrs.frozen(kw_only=True)
class MediaSpan:
    """Where an item's embeddings go: ``mask`` tells which tokens of the span they replace."""

    modality: str
    item: int  # index among the request's items of this modality
    start: int  # token
    length: int  # tokens
    mask: np.ndarray | None = None  # bool [length]; None: all


@attrs.frozen(kw_only=True)
class ProcessedPrompt:
    """A prompt ready to be queued."""

    token_ids: Sequence[int]
    spans: Sequence[MediaSpan] = ()  # in order of start
    positions: np.ndarray | None = None  # int64 [A, tokens] for A axes; None: 0, 1, 2, ...
    next_position: int | None = None  # of the first output token, if positions are given


class ModelProcessor(Protocol):
    """Made once an engine: ``Target(config, tokenizer, path)``."""

    def __init__(self, config: Mapping[str, Any], tokenizer: Tokenizer, path: str) -> None: ...

    def placeholder(self, modality: str) -> str:
        """The text that stands for one item in a chat message."""

    def process(self, token_ids: Sequence[int], media: Mapping[str, Sequence[EncoderInput]]) -> ProcessedPrompt:
        """Expand each placeholder to as many tokens as its item has embeddings.

        ``ValueError`` if there are more or fewer placeholders than items, with both numbers.
        """
