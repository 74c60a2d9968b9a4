"""Where log records go, and which."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

from vllm_plugin_server.logs.formats import JsonLines, TextLines

__all__ = ["FORMATS", "LEVELS", "configure"]

LEVELS = ("critical", "error", "warning", "info", "debug")
FORMATS = {"text": TextLines, "json": JsonLines}
OURS = ("vllm_core", "vllm_plugin_server", "vllm_plugin", "uvicorn")
# At "debug" these write of every connection and header, keys included; they join at warning.
TALKATIVE = ("uvicorn", "asyncio", "httpcore", "httpx", "opentelemetry", "urllib3")


def configure(
    level: str = "info", style: str = "text", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> logging.Handler:
    """Send records of this process to ``stream`` (standard error), once. Calling it again takes the old one's place.

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
    root.handlers = [h for h in root.handlers if not isinstance(h, _Ours)] + [handler]
    least = getattr(logging, level.upper())
    root.setLevel(max(least, logging.WARNING))
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(least)
        logger.propagate, logger.handlers = True, []
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    logging.getLogger("uvicorn.error").setLevel(max(least, logging.WARNING))
    return handler


class _Ours(logging.StreamHandler):
    """The handler that `configure` installs, so that it finds its own again."""
