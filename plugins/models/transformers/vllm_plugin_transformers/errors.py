"""Why a model cannot be served by the fallback."""

from __future__ import annotations


class CannotServe(ValueError):
    """The reason, said of "it": the model."""
