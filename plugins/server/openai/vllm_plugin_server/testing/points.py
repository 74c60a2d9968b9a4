"""The points of a request at which clients leave: how a request gets there, and how long a step takes there."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

import attrs

from vllm_plugin_server.testing.asked import Asked
from vllm_plugin_server.testing.wire import Address, Unanswered, request_bytes, send

__all__ = ["Points", "longest_of"]

PROMPT = 600  # characters of a prompt that takes a while to compute
PIECES = 8  # at most, after which a client leaves
TRIES = 3
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 40}


async def longest_of(address: Address) -> int:
    """Tokens of a request, by /v1/models; 512 if it does not tell."""
    value = (await send(address, request_bytes(address, "GET", "/v1/models"))).json()
    return int(value["data"][0].get("max_model_len") or 512)


@attrs.define
class Points:
    """``reach`` gives a request at a point, and the name of that point: chance may have led to the next one.

    steps   seconds of a step, of a request alone: for "prefill" one that computes a prompt, else of a token
    """

    address: Address
    model: str
    longest: int  # tokens
    chance: random.Random
    steps: dict[str, float] = attrs.field(factory=dict)

    async def measure(self) -> None:
        """The steps, undisturbed."""
        first, gaps = [], []
        for _ in range(TRIES):
            begin = time.perf_counter()
            asked = await self.long_prompt()
            await asked.piece()
            first.append(time.perf_counter() - begin)
            for _ in range(PIECES):
                begin = time.perf_counter()
                if await asked.piece() is None:
                    break
                gaps.append(time.perf_counter() - begin)
            asked.leave(abruptly=True)
        self.steps = dict.fromkeys(("queue", "decode", "tool call", "grammar", "structured"), statistics.median(gaps))
        self.steps["prefill"] = statistics.median(first)

    def _text(self) -> str:
        """About ``PROMPT`` tokens that no cache has."""
        return "".join(self.chance.choices("0123456789 ", k=min(PROMPT, self.longest // 2)))

    async def long_prompt(self) -> Asked:
        body = {"model": self.model, "prompt": self._text(), "max_tokens": self.longest // 3, "ignore_eos": True}
        return await Asked.open(self.address, "/v1/completions", body)

    async def prefill(self) -> tuple[Asked, str]:
        asked = await self.long_prompt()
        try:
            await asked.piece(self.chance.uniform(0.1, 0.9) * self.steps["prefill"])
        except TimeoutError:
            return asked, "prefill"
        return asked, "decode"  # it was faster this time

    async def decode(self) -> tuple[Asked, str]:
        body: dict[str, Any] = {"model": self.model, "prompt": "Hello", "ignore_eos": True}
        body["max_tokens"] = self.longest // 2
        if self.chance.random() < 0.3:
            body["n"] = 2
        asked = await Asked.open(self.address, "/v1/completions", body)
        await self._some(asked)
        return asked, "decode"

    async def tool_call(self) -> tuple[Asked, str]:
        """Its arguments are being written, which the server reads as they come."""
        schema = {"type": "object", "properties": {"numbers": NUMBERS}, "required": ["numbers"]}
        asked = await self._chat(
            tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
            tool_choice={"type": "function", "function": {"name": "f"}},
        )
        for _ in range(50):
            piece = await asked.piece()
            if piece is None:
                raise Unanswered("a chat with a forced tool ended without a call of it")
            if piece["choices"] and piece["choices"][0]["delta"].get("tool_calls"):
                await self._some(asked)
                return asked, "tool call"
        raise Unanswered("fifty pieces of a chat with a forced tool, and no call of it")

    async def structured(self) -> tuple[Asked, str]:
        """With a schema that is new, left while its grammar is compiled, or while it is followed."""
        name = f"n{self.chance.randrange(10**9)}"
        schema = {"type": "object", "properties": {name: NUMBERS}, "required": [name], "additionalProperties": False}
        asked = await self._chat(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        )
        if self.chance.random() < 0.5:
            try:
                await asked.piece(self.chance.uniform(0.0, 0.01))
            except TimeoutError:
                return asked, "grammar"
        await self._some(asked)
        return asked, "structured"

    async def _chat(self, **fields: Any) -> Asked:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Numbers?"}]}
        body["max_tokens"] = self.longest // 3
        return await Asked.open(self.address, "/v1/chat/completions", body | fields)

    async def _some(self, asked: Asked) -> None:
        for _ in range(self.chance.randrange(2, PIECES)):
            if await asked.piece() is None:
                return
