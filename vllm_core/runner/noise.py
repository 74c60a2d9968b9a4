"""Noise where the runner looks for it; `vllm_core.ops.noise` makes it."""

from vllm_core.ops.noise import ACCEPT, GUESS, SAMPLE, uniform

__all__ = ["ACCEPT", "GUESS", "SAMPLE", "uniform"]
