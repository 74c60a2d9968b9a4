"""Which HTTP request a log record belongs to."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["request_id"]

request_id: ContextVar[str] = ContextVar("vllm_plugin_server_request_id", default="")
