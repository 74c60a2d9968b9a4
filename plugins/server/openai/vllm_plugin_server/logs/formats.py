"""How a log record becomes a line: for people, or JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import Any

from vllm_plugin_server.logs.context import request_id
from vllm_plugin_server.logs.escape import escaped

__all__ = ["FACTS", "JsonLines", "TextLines"]

FACTS = "facts"  # ``logger.info("...", extra={FACTS: {"status": 200}})``: named values of a record
SHOWN = 8192  # characters of a message; what is beyond is cut
LEAST_SECRET = 4  # characters of a key that is looked for: a shorter one would blot out words


class _Lines(logging.Formatter):
    """``secrets`` never reach a line, whatever a message says."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = sorted((s for s in secrets if len(s) >= LEAST_SECRET), key=len, reverse=True)

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _message(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return self._clean(text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)")

    def _trace(self, record: logging.LogRecord) -> str:
        return self._clean(self.formatException(record.exc_info)) if record.exc_info else ""

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts = getattr(record, FACTS, {})
        return {key: self._clean(value) if isinstance(value, str) else value for key, value in facts.items()}


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextLines(_Lines):
    """Time in UTC, level, logger, message, facts, request. A traceback follows in lines that begin with a bar."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("vllm_").replace("plugin_server", "server")
        parts = [f"{_time(record)} {record.levelname:<7} {name}: {escaped(self._message(record))}"]
        facts = self._facts(record)
        if request := request_id.get():
            facts.setdefault("request_id", request)
        parts += [f"{key}={_short(value)}" for key, value in facts.items()]
        lines = [f"    | {escaped(line)}" for line in self._trace(record).splitlines()]
        return "\n".join([" ".join(parts), *lines])


class JsonLines(_Lines):
    """An object a line, ASCII only; facts are keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        if request := request_id.get():
            line["request_id"] = request
        line.update({key: value for key, value in self._facts(record).items() if key not in line})
        if trace := self._trace(record):
            line["traceback"] = trace
        return json.dumps(line, default=str)


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' or not c.isprintable() for c in text) else text
