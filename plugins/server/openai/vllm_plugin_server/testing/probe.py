"""Whether a server is alive and still says what it said when nobody disturbed it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import attrs

from vllm_plugin_server.testing.wire import Address, Reply, Unanswered, post, request_bytes, send

__all__ = ["Probe", "served_model", "wait_until_ready"]

QUESTION = "One, two, three, four,"


async def _get(address: Address, target: str, seconds: float = 10.0) -> Reply:
    return await send(address, request_bytes(address, "GET", target), seconds=seconds)


async def wait_until_ready(address: Address, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if (await _get(address, "/health")).status == 200:
                return
        except Unanswered:
            pass
        if time.monotonic() > end:
            raise Unanswered(f"http://{address.host}:{address.port}/health was not 200 within {seconds:g} s")
        await asyncio.sleep(0.1)


async def served_model(address: Address) -> str:
    """The first model of /v1/models."""
    reply = await _get(address, "/v1/models")
    value = reply.json()
    if reply.status != 200 or not isinstance(value, dict) or not value.get("data"):
        raise Unanswered(f"/v1/models answered {reply.status} {reply.body[:200]!r}; is a key needed (--api-key)?")
    return value["data"][0]["id"]


@attrs.define
class Probe:
    """Asks the same greedy question again and again."""

    address: Address
    model: str
    tokens: int = 4
    expected: str | None = None  # the first answer

    async def ask(self) -> str:
        body: dict[str, Any] = {
            "model": self.model, "prompt": QUESTION, "max_tokens": self.tokens, "temperature": 0, "ignore_eos": True
        }  # fmt: skip
        reply = await post(self.address, "/v1/completions", body)
        value = reply.json()
        if reply.status != 200 or not isinstance(value, dict):
            raise Unanswered(f"a good request was answered {reply.status} {reply.body[:200]!r}")
        return value["choices"][0]["text"]

    async def wrong(self) -> str:
        """Empty while all is well, else what is wrong with the server."""
        try:
            health = await _get(self.address, "/health")
            if health.status != 200:
                return f"/health is {health.status}"
            answer = await self.ask()
        except Unanswered as error:
            return f"a good request after it: {error}"
        if self.expected is None:
            self.expected = answer
        return "" if answer == self.expected else f"the greedy answer became {answer!r} from {self.expected!r}"
