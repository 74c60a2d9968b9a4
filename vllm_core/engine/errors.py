"""What can go wrong with a request, and with the engine."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["EngineDeadError", "EngineRestartingError", "EngineStuckError", "RequestError", "nearest"]


class RequestError(ValueError):
    """One request cannot be served as it is; others are unharmed."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(f"request {request_id}: {message}" if request_id else message)
        self.request_id, self.reason = request_id, message


class EngineDeadError(RuntimeError):
    """A step failed, or its process ended, so nothing that was running can go on. The cause is chained, or said."""


class EngineRestartingError(EngineDeadError):
    """The engine has ended and another one is being started: the same request may be sent again then.

    retry_after   seconds until it will be ready, as far as the last start tells
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineStuckError(EngineDeadError):
    """The engine is there and does not go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` or nothing."""
    found = get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
