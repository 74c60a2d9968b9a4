"""Errors in Anthropic's shape."""

from __future__ import annotations

import msgspec

from vllm_plugin_server.errors import ApiError, error_body

__all__ = ["ERROR", "anthropic_error", "anthropic_event"]

_TEXT = {"type": "string"}
_INNER = {"type": "object", "required": ["type", "message"], "properties": {"type": _TEXT, "message": _TEXT}}
ERROR = {"type": "object", "required": ["type", "error"], "properties": {"type": _TEXT, "error": _INNER}}
"""Their shape, for /openapi.json."""

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: ApiError) -> bytes:
    """``{"type": "error", "error": {"type", "message"}}``, as short as OpenAI's."""
    message = msgspec.json.decode(error_body(error))["error"]["message"]
    kind = TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def anthropic_event(error: ApiError) -> bytes:
    """As the last event of a stream that had begun."""
    return b"event: error\ndata: " + anthropic_error(error) + b"\n\n"
