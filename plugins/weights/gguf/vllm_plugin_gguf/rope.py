"""Rotary scaling, as config.json writes it under ``rope_scaling``."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.file import GgufFile

FACTORS = "rope_freqs.weight"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def scaling(file: GgufFile, arch: str, head_dim: int, theta: float) -> dict[str, Any] | None:
    """From the metadata, or from the frequency factors that Llama 3.1 and later carry as a tensor."""
    m = file.metadata
    kind = m.get(f"{arch}.rope.scaling.type", "none")
    if FACTORS in file.tensors:
        return _llama3(file, head_dim, theta)
    if kind == "none":
        return None
    factor = float(m[f"{arch}.rope.scaling.factor"])
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = m.get(f"{arch}.rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor} | (
            {"original_max_position_embeddings": original} if original else {}
        )
    raise CheckpointError(f"{file.path} scales rotary positions by {kind!r}; known: none, linear, yarn")


def llama3_factors(head_dim: int, theta: float, factor: float) -> np.ndarray:
    """By what each frequency is divided, float64 [head_dim / 2].

    Long wavelengths by ``factor``, short ones not at all, those between by a blend: the rule of
    Meta's llama-models (``apply_scaling`` in models/llama3/model.py).
    """
    low, high, original = _LLAMA3.values()
    wavelength = 2 * pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _llama3(file: GgufFile, head_dim: int, theta: float) -> dict[str, Any]:
    t = file.tensors[FACTORS]
    stored = np.frombuffer(file.data[t.offset : t.offset + t.nbytes], np.float32)
    factor = round(float(stored.max()), 4)
    expected = llama3_factors(head_dim, theta, factor)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
        raise CheckpointError(
            f"{file.path} has rotary frequency factors ({FACTORS}) that are not those of Llama 3's rule with"
            f" factor {factor:g}: other scalings by tensor are not read"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
