"""Where log records go, and which."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

from vllm_core.serving import QueuedHandler
from vllm_plugin_server.logs.formats import JsonLines, TextLines

__all__ = ["FORMATS", "LEVELS", "configure", "installed"]

LEVELS = ("critical", "error", "warning", "info", "debug")
FORMATS = {"text": TextLines, "json": JsonLines}
OURS = "vllm_"  # what the names of our packages begin with, plugins' too
# At "debug" these write of every connection and header, keys included.
TALKATIVE = ("uvicorn", "uvicorn.error", "asyncio", "httpcore", "httpx", "opentelemetry", "urllib3")


def configure(
    level: str = "info", style: str = "text", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> logging.Handler:
    """Send records of this process to ``stream`` (standard error), once. Calling it again takes the old one's place.

    Nobody who logs waits for who reads them; ``flush`` of the handler does, for a moment.

    level     of our own records; other packages' come from "warning" on
    style     "text" or "json"
    secrets   keys, which are blotted out of every line
    """
    if level not in LEVELS:
        raise ValueError(f"--log-level must be one of {', '.join(LEVELS)}, not {level!r}")
    if style not in FORMATS:
        raise ValueError(f"--log-format must be one of {', '.join(FORMATS)}, not {style!r}")
    handler = _Ours(stream or sys.stderr)
    handler.setFormatter(FORMATS[style](secrets))
    root = logging.getLogger()
    if (before := installed()) is not None:
        before.flush()
        before.close()
    root.handlers = [h for h in root.handlers if not isinstance(h, _Ours)] + [handler]
    if stream is None:
        logging.captureWarnings(True)
    least = getattr(logging, level.upper())
    root.setLevel(least)
    for name in TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(max(least, logging.WARNING))
        logger.propagate, logger.handlers = True, []  # else: lines of another shape, which escape nothing
    return handler


def installed() -> QueuedHandler | None:
    """The handler that `configure` has installed."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, _Ours)), None)


class _Ours(QueuedHandler):
    """The handler that `configure` installs: of other packages' records it takes those from warning on."""

    def filter(self, record: logging.LogRecord) -> bool | logging.LogRecord:
        wanted = record.levelno >= logging.WARNING or record.name.startswith(OURS)
        return super().filter(record) if wanted else False
