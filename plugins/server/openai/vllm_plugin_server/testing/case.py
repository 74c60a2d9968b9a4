"""One hostile request, and what a good server may answer."""

from __future__ import annotations

import json
from typing import Any

import attrs

from vllm_plugin_server.testing.wire import Address, Reply, request_bytes

__all__ = ["BAD", "CLOSED", "OK", "Case", "case", "error_shape"]

OK = (200,)
BAD = (400,)
CLOSED = 0  # stands for a connection that is closed without an answer

MOST_BYTES_OF_AN_ERROR = 8_000


@attrs.frozen(kw_only=True)
class Case:
    """``want`` are the statuses of OpenAI's or vLLM's servers, ``CLOSED`` among them where HTTP itself is broken.

    raw     bytes to send as they are, in place of method, target, headers and body; ``{host}`` is replaced
    cve     the advisory of ``docs/reliability.md`` that this request replays
    needs   the path of a route that must exist for the case to say anything
    """

    name: str
    group: str
    want: tuple[int, ...] = BAD
    method: str = "POST"
    target: str = "/v1/completions"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    raw: bytes | None = None
    half_close: bool = False
    cve: tuple[str, ...] = ()
    needs: str = ""

    def bytes_for(self, address: Address) -> bytes:
        if self.raw is not None:
            return self.raw.replace(b"{host}", f"{address.host}:{address.port}".encode())
        return request_bytes(address, self.method, self.target, self.body, self.headers)

    def wrong(self, reply: Reply) -> str:
        """Why the answer is none that a good server gives; empty if it is."""
        if reply.status not in self.want:
            return (
                f"{reply.status} instead of {' or '.join(str(s or 'closed') for s in self.want)}: {reply.body[:160]!r}"
            )
        return error_shape(self.target, reply) if reply.status >= 400 and self.raw is None else ""


def case(group: str, name: str, target: str, body: Any, want: tuple[int, ...] = BAD, **more: Any) -> Case:
    """A JSON body posted to a route. ``bytes`` are sent as they are."""
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(group=group, name=name, target=target, body=written, want=want, needs=target.split("?")[0], **more)


def error_shape(target: str, reply: Reply) -> str:
    """R2: an error of /v1 is ``{"error": {message, type, param, code}}`` and small; Anthropic's route has its own."""
    if len(reply.body) > MOST_BYTES_OF_AN_ERROR:
        return f"an error of {len(reply.body):,} bytes, above {MOST_BYTES_OF_AN_ERROR:,}"
    if not target.startswith("/v1/"):
        return ""
    value = reply.json()
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        return f"no error.message in {reply.body[:160]!r}"
    if not isinstance(error.get("type"), str):
        return f"no error.type in {reply.body[:160]!r}"
    if target.startswith("/v1/messages"):
        return "" if value.get("type") == "error" else f'no "type": "error" in {reply.body[:160]!r}'
    missing = {"param", "code"} - set(error)
    return f"error has no {', '.join(sorted(missing))}: {reply.body[:160]!r}" if missing else ""
