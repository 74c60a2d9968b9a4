"""What a command says about its own arguments, with the exit code of a wrong call."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """The command was asked wrongly: exit code 2. What was asked rightly and did not work is any other error, and 1."""
