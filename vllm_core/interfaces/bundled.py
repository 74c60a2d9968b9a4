"""The contract of bundled models. No torch."""

from __future__ import annotations

from typing import Protocol


class BundledPath(Protocol):
    """Finds a checkpoint that came with an installed package."""

    def __call__(self) -> str:
        """The path of a checkpoint. ``FileNotFoundError`` says how to get it."""
