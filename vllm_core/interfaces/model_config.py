"""The contract of readers of model configurations. No torch."""

from __future__ import annotations

from typing import Any, Protocol


class ModelConfigReader(Protocol):
    """A function from a checkpoint's path to what its config.json would say."""

    def __call__(self, path: str) -> dict[str, Any]:
        """Plain JSON values, with "architectures". Runs no code from the checkpoint.

        Raises ``ValueError`` naming the file and the field that is missing or wrong.
        """
