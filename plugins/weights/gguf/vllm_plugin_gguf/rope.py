"""Rotary scaling, as config.json writes it under ``rope_scaling``."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.file import GgufFile

FACTORS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
_YARN = {
    "original_context_length": "original_max_position_embeddings",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
_ONE = ("attn_factor", "yarn_attn_factor", "yarn_ext_factor")  # of YaRN, as multiples of what its paper says
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def scaling(file: GgufFile, arch: str, head_dim: int, theta: float) -> dict[str, Any] | None:
    """From the metadata, or from the frequency factors that Llama 3.1 and later carry as a tensor."""
    m = file.metadata
    kind = m.get(f"{arch}.rope.scaling.type", "none")
    if FACTORS in file.tensors:
        return _llama3(file, head_dim, theta)
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise CheckpointError(f"{file.path} scales rotary positions by {kind!r}; known: none, linear, yarn")
    found = {"rope_type": kind, "factor": _factor(file, arch)}
    return found | _yarn(file, f"{arch}.rope.scaling.") if kind == "yarn" else found


def _yarn(file: GgufFile, prefix: str) -> dict[str, Any]:
    """The fields beside the factor that a file has."""
    m, found = file.metadata, {}
    for key, name in _YARN.items():
        if f"{prefix}{key}" in m:
            found[name] = m[f"{prefix}{key}"]
    for key in _ONE:
        if m.get(f"{prefix}{key}", 1.0) != 1.0:
            raise CheckpointError(f"{file.path}: {prefix}{key} is {m[prefix + key]:g}, and only 1 is read")
    return found


def long_rope(file: GgufFile, arch: str) -> dict[str, Any] | None:
    """LongRoPE, whose factors are two tensors; None without them."""
    if LONG not in file.tensors and SHORT not in file.tensors:
        if (kind := file.metadata.get(f"{arch}.rope.scaling.type", "none")) not in ("none", "longrope"):
            raise CheckpointError(f"{file.path} scales rotary positions by {kind!r}; known: none, longrope")
        return None
    if missing := [name for name in (LONG, SHORT) if name not in file.tensors]:
        raise CheckpointError(f"{file.path} has rotary factors for one length only: it lacks {missing[0]}")
    found: dict[str, Any] = {"rope_type": "longrope"}
    for key, name in (("long_factor", LONG), ("short_factor", SHORT)):
        found[key] = [float(str(x)) for x in _floats(file, name)]
    magnitude = file.metadata.get(f"{arch}.rope.scaling.attn_factor")
    return found | ({} if magnitude is None else {"attention_factor": float(str(np.float32(magnitude)))})


def _factor(file: GgufFile, arch: str) -> float:
    key = f"{arch}.rope.scaling.factor"
    value = file.metadata.get(key)
    if not isinstance(value, float | int) or value <= 0:
        raise CheckpointError(f"{file.path} scales rotary positions, and {key} is {value!r}, not a positive number")
    return float(value)


def _floats(file: GgufFile, name: str) -> np.ndarray:
    t = file.tensors[name]
    if t.type != GGMLQuantizationType.F32 or len(t.shape) != 1:
        raise CheckpointError(f"{file.path}: {name} should be a vector in F32, and is {list(t.shape)} in {t.type.name}")
    return np.frombuffer(t.data, np.float32, count=t.shape[0], offset=t.offset)


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
    stored = _floats(file, FACTORS)
    factor = round(float(stored.max()), 4)
    expected = llama3_factors(head_dim, theta, factor)
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-4):
        raise CheckpointError(
            f"{file.path} has rotary frequency factors ({FACTORS}) that are not those of Llama 3's rule with"
            f" factor {factor:g}: other scalings by tensor are not read"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
