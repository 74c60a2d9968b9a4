"""Figures of HTTP: an observer of every exchange. Labels are bounded, whatever clients send."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from vllm_plugin_server.metrics import buckets

__all__ = ["MAX_HANDLERS", "HttpFigures"]

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
MAX_HANDLERS = 200  # templates of routes; should one be a path after all, the rest are counted together


class HttpFigures:
    """Names and labels are those of vLLM's server; ``code`` and the clients that left are ours.

    handler   the route's template, "none" where no route was met
    status    "2xx", "4xx", ...; ``code`` the very number
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handlers: set[str] = set()
        self._requests = Counter(
            "http_requests", "HTTP requests that ended.", ["handler", "method", "status", "code"], registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds", "From the request to the last byte of the answer, by route.",
            ["handler", "method"], buckets=buckets.HTTP, registry=registry,
        )  # fmt: skip
        self._fine = Histogram(
            "http_request_duration_highr_seconds", "The same of all routes, with finer buckets.",
            buckets=buckets.TTFT, registry=registry,
        )  # fmt: skip
        self._left = Counter(
            "http_requests_disconnected", "Clients that left before the answer was complete.", ["handler"],
            registry=registry,
        )  # fmt: skip

    def answered(self, exchange: Any) -> None:
        handler = self._handler(exchange.route)
        method = exchange.method if exchange.method in METHODS else "other"
        code = exchange.status if 100 <= exchange.status <= 599 else 0
        self._requests.labels(handler, method, f"{code // 100}xx", str(code)).inc()
        self._seconds.labels(handler, method).observe(exchange.seconds)
        self._fine.observe(exchange.seconds)
        if exchange.disconnected:
            self._left.labels(handler).inc()

    def _handler(self, route: str) -> str:
        if not route:
            return "none"
        if route not in self._handlers:
            if len(self._handlers) >= MAX_HANDLERS:
                return "other"
            self._handlers.add(route)
        return route
