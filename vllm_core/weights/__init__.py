"""Checkpoints: finding them, reading them, and mapping their tensors onto a model's parameters.

Importing this package imports no torch; what needs it is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm_core.weights.errors import CheckpointError, RuleError, WeightsError
from vllm_core.weights.rules import Rule, Table, ignore, rule

if TYPE_CHECKING:
    from vllm_core.weights.checkpoint import open_checkpoint
    from vllm_core.weights.dummy import fill_dummy
    from vllm_core.weights.load import LoadReport, load_weights

__all__ = [
    "CheckpointError",
    "LoadReport",
    "Rule",
    "RuleError",
    "Table",
    "WeightsError",
    "fill_dummy",
    "ignore",
    "load_weights",
    "open_checkpoint",
    "rule",
]

_LAZY = {
    "LoadReport": "load",
    "fill_dummy": "dummy",
    "load_weights": "load",
    "open_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
