"""Greedy questions whose answers are known from a quiet run, for measurements that disturb the server meanwhile."""

from __future__ import annotations

import asyncio

import attrs

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.testing.wire import Unanswered

__all__ = ["CLEAN", "Greedy", "Load"]

QUESTIONS = 16
CLEAN = ("engine_dead", "HTTP 503", "HTTP 429")  # of an error that says what happened


@attrs.define
class Greedy:
    """``ask(i)`` asks question ``i``, which has ``tokens`` tokens of answer, and a few more for larger ``i``."""

    url: str
    model: str
    tokens: int
    client: Client = attrs.field(init=False)
    known: list[set[str]] = attrs.field(factory=list)  # answers of quiet runs, which batches may have changed

    def __attrs_post_init__(self) -> None:
        self.client = Client(self.url)

    async def ask(self, i: int) -> Outcome:
        extra = {"temperature": 0, "return_token_ids": True}
        wish = Wish(backend="openai", route="/v1/completions", model=self.model, ignore_eos=True, extra=extra)
        i %= QUESTIONS
        return await ask(self.client, wish, Sample(f"Number {i}: once upon a time", 8, self.tokens + 8 * i), i)

    async def learn(self, rounds: int = 3) -> None:
        """Alone, and all of them at the same time."""
        found = [await self.ask(i) for i in range(QUESTIONS)]
        for _ in range(rounds):
            found += await asyncio.gather(*map(self.ask, range(QUESTIONS)))
        if failed := [outcome.error for outcome in found if not outcome.success]:
            raise Unanswered(f"a question in a quiet run: {failed[0]}")
        self.known = [{outcome.text for outcome in found[i::QUESTIONS]} for i in range(QUESTIONS)]

    def wrong(self, i: int, outcome: Outcome) -> bool:
        """Whether it said anything that no quiet run has said; a part of an answer is none as long as it agrees."""
        known = self.known[i % QUESTIONS]
        return outcome.text not in known if outcome.success else not any(t.startswith(outcome.text) for t in known)


@attrs.define
class Load:
    """Streams that run all the time while ``open``."""

    greedy: Greedy
    streams: int
    open: asyncio.Event = attrs.field(factory=asyncio.Event)
    current: dict[int, tuple[int, asyncio.Task[Outcome]]] = attrs.field(factory=dict)
    slots: list[asyncio.Task[None]] = attrs.field(factory=list)

    def start(self) -> None:
        self.open.set()
        self.slots = [asyncio.create_task(self._slot(i)) for i in range(self.streams)]

    async def _slot(self, slot: int) -> None:
        number = slot
        while True:
            await self.open.wait()
            task = asyncio.create_task(self.greedy.ask(number))
            self.current[slot] = number, task
            await asyncio.wait([task])
            number += self.streams + 1

    def in_flight(self) -> list[tuple[int, asyncio.Task[Outcome]]]:
        return [(number, task) for number, task in self.current.values() if not task.done()]

    def end(self) -> None:
        for task in self.slots:
            task.cancel()
