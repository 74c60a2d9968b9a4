"""What plugin authors test with: a class for each kind of plugin. Importing this package imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_core.testing.attention import AttentionConformance
    from vllm_core.testing.model import ModelConformance

_KITS = {
    "AttentionConformance": "attention",
    "ModelConformance": "model",
}

__all__ = ["AttentionConformance", "ModelConformance"]


def __getattr__(name: str):
    if name in _KITS:
        return getattr(import_module(f"vllm_core.testing.{_KITS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
