"""Checkpoints: finding them, reading them, and mapping their tensors onto a model's parameters."""

from vllm_core.weights.rules import Rule, Table, ignore, rule

__all__ = ["Rule", "Table", "ignore", "rule"]
