"""Images, audio and video: from bytes to what an encoder takes."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import MediaLoaderQuery, MediaQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def media_loader(query: MediaLoaderQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to decode files of one modality.

    When     Once per engine and modality, when the first request brings such a file, in the
             process that renders prompts. Fetching, size limits and allow-lists are the core's.
    query    ``modality``: ``"image"``, ``"audio"``, ``"video"``; ``params`` the user's
             settings for it.
    Returns  ``Offer`` whose target has the contract ``interfaces.media.MediaLoader``;
             ``takes={"media.type": ("image/png", ...)}`` lists the MIME types it decodes.
             ``Refusal`` when a library it needs is missing; ``None`` for other modalities.
    Choice   Per MIME type, among those who take it: the highest rank, ``prefer.media_loader``,
             then an error.
    Errors   An exception counts as ``Refusal``. One while decoding belongs to that request.
    Since    Hook API 1.
    """
    return None


@hookspec
def media_processor(query: MediaQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to turn one decoded item into the tensors that a model's encoder takes.

    When     Once per engine and modality, in the process that renders prompts.
    query    ``modality``, the model's ``architecture``, ``config`` the content of its
             preprocessor_config.json with the user's overrides.
    Returns  ``Offer`` whose target has the contract ``interfaces.media.MediaProcessor``: a pure
             function of the item, since its result is cached by the item's hash. ``None`` for
             other modalities and architectures.
    Choice   The plugin that serves the model goes before all others; then the highest rank,
             ``prefer.media_processor``, and an error.
    Errors   An exception counts as ``Refusal``. One while processing belongs to that request.
    Since    Hook API 1.
    """
    return None
