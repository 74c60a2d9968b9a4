"""What plugin authors test with: ``ModelConformance``. Importing this package imports no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_core.testing.model import ModelConformance

__all__ = ["ModelConformance"]


def __getattr__(name: str):
    if name == "ModelConformance":
        from vllm_core.testing.model import ModelConformance

        return ModelConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
