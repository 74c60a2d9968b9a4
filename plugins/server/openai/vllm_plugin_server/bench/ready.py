"""Waiting for a server, and finding out what it serves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from vllm_plugin_server.bench.ask import Sample, Wish, ask
from vllm_plugin_server.bench.client import Answer, BadAnswer, Client

__all__ = ["first_model", "wait_until_answers", "wait_until_listens", "warm_up"]

AGAIN = 0.5  # seconds between tries


async def wait_until_listens(client: Client, seconds: float) -> Answer:
    """Its answer to /v1/models, whatever that is. ``ValueError`` if nobody has answered after so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await client.exchange("GET", "/v1/models")
        except (OSError, BadAnswer) as error:
            if time.monotonic() >= end:
                raise ValueError(f"{client.url}/v1/models: {error}; is the server running?") from error
        await asyncio.sleep(AGAIN)


async def first_model(client: Client, seconds: float = 0.0) -> tuple[str, str | None]:
    """The name that requests give, and where the model is from if the server says so. Waits ``seconds`` for one."""
    answer = await wait_until_listens(client, seconds)
    try:
        value: Any = msgspec.json.decode(answer.body)
        first = value["data"][0]
        return str(first["id"]), first.get("root")
    except (msgspec.DecodeError, LookupError, TypeError):
        hint = "; its key is asked for: OPENAI_API_KEY, or --header Authorization=..." if answer.status == 401 else ""
        raise ValueError(
            f"{client.url}/v1/models answered {answer.status} {answer.body[:200]!r} and names no model{hint}"
        ) from None


async def wait_until_answers(client: Client, wish: Wish, sample: Sample, seconds: float) -> None:
    """Ask one request until it is answered. ``ValueError`` with the last failure if it never is."""
    end = time.monotonic() + seconds
    while True:
        outcome = await ask(client, wish, sample)
        if outcome.success:
            return
        if time.monotonic() >= end or outcome.error.startswith("HTTP 4"):  # waiting makes no wrong request right
            raise ValueError(f"{client.url}{wish.route} does not answer the first prompt: {outcome.error}")
        await asyncio.sleep(AGAIN)


async def warm_up(client: Client, wish: Wish, sample: Sample, count: int, at_once: int | None) -> None:
    gate = asyncio.Semaphore(at_once or count)

    async def one() -> None:
        async with gate:
            await ask(client, wish, sample)

    await asyncio.gather(*(one() for _ in range(count)))
