"""What a checkpoint's config says about number format and length, and what the user may ask instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_core.engine.model_config import ModelConfigError
from vllm_core.interfaces.device import Device

LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
)
"""Where architectures keep the longest sequence they were made for."""


def choose_dtype(asked: str, config: Mapping[str, Any], able: Sequence[str], device: Device) -> str:
    """The number format of weights and activations; ``able`` are the platform's, fastest first."""
    if asked != "auto":
        if asked not in able and asked != "float32":
            raise ValueError(
                f"dtype {asked} is not computed well on {device.name or device.type}; it takes {', '.join(able)}"
            )
        return asked
    text = config.get("text_config") or {}
    stored = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32").split(".")[-1]
    if stored == "float32" and device.type != "cpu":
        return able[0]  # accelerators compute float32 several times slower, and few checkpoints mean it
    return stored if stored in able else able[-1]


def choose_max_model_len(asked: int | None, config: Mapping[str, Any]) -> int:
    """Tokens of the longest sequence: what the user asks, at most what the model was made for."""
    text = config.get("text_config") or {}
    found = {key: source[key] for source in (text, config) for key in LENGTH_KEYS if source.get(key) is not None}
    for key, length in found.items():
        if type(length) is int and length < 1:
            raise ModelConfigError(f'"{key}" in config.json must be at least 1, not {length}')
    known = {key: length for key, length in found.items() if type(length) is int}
    shortest = min(known, key=lambda key: known[key], default="")
    limit = known.get(shortest)
    if asked is None:
        if limit is None:
            raise ValueError(
                f"config.json does not say how long a sequence may be ({', '.join(LENGTH_KEYS)}); pass --max-model-len"
            )
        return limit
    if limit is not None and asked > limit:
        raise ValueError(
            f"max_model_len is {asked:,} tokens, and the model was made for {limit:,} (config.json).\n"
            f"  Any one of these starts:\n    --max-model-len {limit}\n"
            f"    --hf-overrides '{{\"{shortest}\": {asked}}}'    if you know it works beyond"
        )
    return asked
