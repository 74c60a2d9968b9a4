"""The contracts of media: bytes to items, items to an encoder's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class MediaLimits:
    """Checked against the header, before anything is decoded."""

    max_bytes: int
    max_pixels: int  # width * height of an image or a frame
    max_seconds: float  # of audio or video
    max_frames: int


@attrs.frozen(kw_only=True)
class MediaItem:
    """Something decoded.

    image   uint8 [height, width, 3], RGB.
    video   uint8 [frames, height, width, 3], RGB; ``rate`` frames a second as sampled.
    audio   float32 [samples] in [-1, 1], one channel; ``rate`` samples a second.
    """

    modality: str
    data: np.ndarray
    rate: float = 0.0
    metadata: Mapping[str, Any] = attrs.field(factory=dict)  # e.g. times of frames, seconds


class MediaLoader(Protocol):
    """Made once an engine and modality; ``load`` runs in a thread pool, several at a time."""

    def __init__(self, params: Mapping[str, Any]) -> None: ...

    def load(self, data: bytes, mime_type: str, limits: MediaLimits) -> MediaItem:
        """Decode a file. ``ValueError`` says what is wrong with it or which limit it exceeds."""


@attrs.frozen(kw_only=True)
class EncoderInput:
    """What ``encode`` of the model takes for one item."""

    tensors: Mapping[str, Tensor]  # on the CPU; names and shapes as the model documents
    num_tokens: int  # embeddings that the item becomes
    grid: tuple[int, ...] = ()  # e.g. (time, height, width) in patches, for positions with axes


class MediaProcessor(Protocol):
    """Made once an engine and modality: ``Target(config)``. Pure: results are cached by hash."""

    def __init__(self, config: Mapping[str, Any]) -> None: ...

    def process(self, item: MediaItem) -> EncoderInput:
        """``ValueError`` if the item cannot be taken (too small, too long), with the bound."""

    def most_tokens(self, limits: MediaLimits) -> int:
        """Embeddings of the largest item within the limits: memory is planned with it."""
