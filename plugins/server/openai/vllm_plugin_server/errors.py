"""What clients see when something goes wrong: OpenAI's shape, bounded, with the status a client library expects."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from vllm_core.serving import EngineDeadError, RequestError
from vllm_plugin_server.limits import most

__all__ = [
    "ApiError",
    "bad_request",
    "error_body",
    "error_of",
    "field_of",
    "name_fields",
    "no_memory",
    "refusal",
    "shown",
]

log = logging.getLogger(__name__)
_fields: ContextVar[Mapping[str, str]] = ContextVar("vllm_plugin_server_fields")
MOST_MESSAGE = most("error_bytes") // 4  # characters: none takes more than four bytes... but escapes do: see error_body
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 500: "internal_error"}


class ApiError(Exception):
    """An answer that is an error. ``headers`` go with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.type = type or TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
        self.code = code or CODES.get(status)
        self.headers = dict(headers or {})


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def name_fields(names: Mapping[str, str]) -> None:
    """For the request at hand: what the engine calls something -> the request's field for it, where they differ."""
    _fields.set(names)


def field_of(name: str) -> str:
    return _fields.get({}).get(name, name)


def refusal(message: str) -> ApiError:
    """What the engine says of a request, about the field that this has."""
    if (name := _param_of(message)) is None:
        return bad_request(message)
    field = field_of(name)
    return bad_request(field + message[len(name) :], field)


def no_memory(message: str) -> ApiError:
    return ApiError(503, message, code="out_of_memory", headers={"retry-after": "1"})


def error_of(error: BaseException) -> ApiError:
    """Any exception as an answer. What is nobody's fault but ours is logged, and its text kept inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError):
        return refusal(error.reason)
    if isinstance(error, EngineDeadError):
        seconds = math.ceil(getattr(error, "retry_after", 5.0))
        return ApiError(503, str(error), code="engine_dead", headers={"retry-after": str(max(seconds, 1))})
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, _NAMES.get(error.status_code, error.detail), headers=error.headers)
    if isinstance(error, MemoryError):
        log.error("a request failed for want of memory (%s)", _place(error))
        return no_memory("the server had not enough memory for this request; try again later, or ask for less")
    if isinstance(error, TimeoutError):
        return ApiError(504, "the request took longer than it may", code="request_timeout")
    if isinstance(error, ValueError) and not _is_ours(error):
        # By contract about the request; were it a bug after all, the log shows where.
        log.warning("a request was refused: %s (%s)", error, _place(error))
        return refusal(str(error))
    log.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
    return ApiError(500, "the server failed at this request; its log says why")


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised it, which says `ApiError` where it means a request."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


def _place(error: BaseException) -> str:
    """Where it was raised, in one line: clients could fill the log with tracebacks."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no traceback"


def error_body(error: ApiError) -> bytes:
    """``{"error": {message, type, param, code}}``, of at most 8 kB."""
    room = most("error_bytes") - 256
    message, param = error.message, None if error.param is None else error.param[:200]
    while True:
        fields: dict[str, Any] = {"message": message, "type": error.type, "param": param, "code": error.code}
        body = msgspec.json.encode({"error": fields}) if _is_text(message) else b" " * (room + 1)
        if len(body) <= room:
            return body
        message = message.encode("utf-8", "replace").decode()[: min(len(message) // 2, MOST_MESSAGE)] + " …"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any, most: int = 80) -> str:
    """A client's value in a message. Lists and objects are not written out: that takes long, to be cut off then."""
    if isinstance(value, str):
        return repr(value[:most])
    return {list: "a list", dict: "an object"}.get(type(value)) or repr(value)[:most]


def _param_of(message: str) -> str | None:
    """The field that a message of the engine begins with, as they do."""
    word = message.split(" ", 1)[0].split("=", 1)[0].rstrip(":")
    return word if word.isidentifier() and ("_" in word or word in _FIELDS) else None


_FIELDS = {"n", "temperature", "seed", "stop", "logprobs", "priority", "messages", "prompt", "tools"}
_NAMES = {404: "there is no such path", 405: "this path has no such method"}
