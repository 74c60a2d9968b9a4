"""Sampling in float64, one token at a time and by sorting: what the device must agree with."""

from __future__ import annotations

import math

import numpy as np

from vllm_core.interfaces.steps import RowSampling

MASK = 2**64 - 1


def edited(logits, prompt: list[int], output: list[int], s: RowSampling) -> list[float]:
    """Logits after all that a request asks for, as vLLM 0.16 documents it."""
    x = [float(v) for v in logits]
    bad = {last for *prefix, last in s.bad_words if not prefix or output[-len(prefix) :] == prefix}
    for gone in (
        set(range(len(x))) - set(s.allowed_ids) if s.allowed_ids else set(),
        bad,
        set(s.stop_ids) if len(output) < s.min_tokens else set(),
    ):
        masked = [-math.inf if t in gone else v for t, v in enumerate(x)]
        if max(masked) > -math.inf:  # else nothing could be drawn
            x = masked
    for t, bias in s.logit_bias.items():
        x[t] += bias
    seen, counts = set(prompt) | set(output), {t: output.count(t) for t in set(output)}
    for t in seen:
        x[t] = x[t] / s.repetition_penalty if x[t] > 0 else x[t] * s.repetition_penalty
    for t, count in counts.items():
        x[t] -= s.frequency_penalty * count + s.presence_penalty
    return x


def probabilities(x: list[float], s: RowSampling) -> np.ndarray:
    """Temperature, min-p, top-k, top-p, in this order."""
    scores = np.array(x, dtype=np.float64)
    scores = (scores - scores.max()) / s.temperature
    p = np.exp(scores)
    p /= p.sum()
    p[p < s.min_p * p.max()] = 0
    order = np.argsort(-p, kind="stable")
    if s.top_k:
        p[order[s.top_k :]] = 0
    p /= p.sum()  # shares of what is left
    before = np.concatenate(([0.0], np.cumsum(p[order])[:-1]))
    p[order[before >= s.top_p]] = 0
    return p / p.sum()


def noise(seed: int, position: int) -> float:
    """SplitMix64's finaliser over the seed, then over the counter; the upper 48 bits."""

    def mix(z: int) -> int:
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    return (mix((mix((seed + golden) & MASK) + position * 4 * golden) & MASK) >> 16) * 2.0**-48


def agrees(token: int, logits, prompt: list[int], output: list[int], s: RowSampling, tolerance: float = 1e-4) -> bool:
    """Whether this is the token that follows, up to rounding of float32."""
    x = edited(logits, prompt, output, s)
    if s.temperature == 0:
        return x[token] >= max(x) - tolerance * (1 + abs(max(x)))
    ends = np.cumsum(probabilities(x, s))
    start = ends[token - 1] if token else 0.0
    return start - tolerance <= noise(s.seed, len(prompt) + len(output)) < ends[token] + tolerance
