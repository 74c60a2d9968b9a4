"""R14: memory that cannot be had, at a hundred points in all parts: one request fails at most, the rest goes on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.testing.marked_server import MarkedServer
from vllm_plugin_server.testing.shortages import PLACES, Place, Shortage, environment
from vllm_plugin_server.testing.tiny import write_tiny
from vllm_plugin_server.testing.watch import metric
from vllm_plugin_server.testing.wire import Address, Reply, Unanswered, post

__all__ = ["MemoryReport", "memory_failures", "run_memory_failures"]

ENGINE = "vllm_core.engine.process"
NEIGHBOURS = 2  # streams beside the request
TRIES = 3  # with the fault sooner each time, if a request has not come to it
SETTLE = 10.0  # seconds for what is held to be given back
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@attrs.define
class MemoryReport:
    points: int = 0
    survived: int = 0
    nothing_lost: int = 0  # points at which every request was answered all the same
    parts: dict[str, list[int]] = attrs.field(factory=dict)  # survived, of so many points
    statuses: dict[str, int] = attrs.field(factory=dict)  # of requests that failed
    findings: list[str] = attrs.field(factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        parts = {part: f"{survived}/{points}" for part, (survived, points) in self.parts.items()}
        return attrs.asdict(self) | {"findings": self.findings[:20], "parts": parts}


@attrs.define
class Attack:
    server: MarkedServer
    shortage: Shortage
    draw: random.Random
    right: list[str] = attrs.field(factory=list)  # answers of a quiet server: the neighbours', the plain question's
    engine: list[int] = attrs.field(factory=list)  # pids

    async def begin(self) -> None:
        address = self.server.address
        self.engine = self.server.processes(ENGINE)
        self.right = [_said(await self._neighbour(address, i)) for i in range(NEIGHBOURS)]
        self.right.append(_said(await self._plain(address)))
        await self._structured(address, 0)

    async def at(self, number: int, place: Place) -> str | None:
        """Let it fail while a request of its kind runs beside others. The status of the one that failed, or None."""
        address = self.server.address
        for calls in (self.draw.randrange(1, 2 * place.calls + 1), self.draw.randrange(1, place.calls + 1), 1)[:TRIES]:
            beside = [asyncio.create_task(self._neighbour(address, i)) for i in range(NEIGHBOURS)]
            await asyncio.sleep(self.draw.uniform(0, 0.05))
            self.shortage.set(number, calls)
            ask = self._structured(address, self.draw.randrange(1 << 30)) if place.part == "grammar" else (
                self._chat(address) if self.draw.random() < 0.7 or place.name == "render_chat" else self._plain(address)
            )  # fmt: skip
            replies = await asyncio.gather(*beside, ask)
            happened = self.shortage.happened
            self.shortage.set(0, 0)
            lost = self._judge(replies)
            await self._settled()
            if happened:
                return lost
        raise ValueError("no request came there")

    def _judge(self, replies: Sequence[Reply]) -> str | None:
        failed = [reply for reply in replies if _failed(reply)]
        for i, reply in enumerate(replies[:NEIGHBOURS]):
            if not _failed(reply) and _said(reply) != self.right[i]:
                raise ValueError(f"neighbour {i} said {_said(reply)!r} instead of {self.right[i]!r}")
        if len(failed) > 1:
            raise ValueError(f"{len(failed)} requests failed: {[reply.body[-300:] for reply in failed]}")
        for reply in failed:
            error = _failed(reply)
            if set(error) != {"message", "type", "param", "code"}:
                raise ValueError(f"an error of another shape: {reply.status} {reply.body[-300:]!r}")
            return f"{reply.status if reply.status != 200 else 'in a stream'} {error['code']}"
        return None

    async def _settled(self) -> None:
        """The engine is the same, holds nothing, and a greedy question is answered as ever."""
        address, until = self.server.address, time.monotonic() + SETTLE
        if self.server.processes(ENGINE) != self.engine:
            self.engine = self.server.processes(ENGINE)
            raise ValueError("the engine's process is another one")
        reply = await self._plain(address)
        if _said(reply) != self.right[-1]:
            raise ValueError(f"the next question was answered {reply.status} {reply.body[:300]!r}")
        while True:
            held = {name: await metric(address, name) for name in (
                "vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")}  # fmt: skip
            if not any(held.values()):
                return
            if time.monotonic() > until:
                raise ValueError(f"held after it: {held}")
            await asyncio.sleep(0.02)

    async def _neighbour(self, address: Address, number: int) -> Reply:
        return await post(address, "/v1/completions", {
            "prompt": f"neighbour {number}", "max_tokens": 60, "temperature": 0, "ignore_eos": True, "stream": True,
        })  # fmt: skip

    async def _plain(self, address: Address) -> Reply:
        body = {"prompt": "One, two,", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
        return await post(address, "/v1/completions", body)

    async def _chat(self, address: Address) -> Reply:
        stream = self.draw.random() < 0.5
        messages = [{"role": "user", "content": f"What is {self.draw.random()}?"}]
        body = {"messages": messages, "max_tokens": 30, "temperature": 0.8, "seed": 1, "stream": stream}
        return await post(address, "/v1/chat/completions", body)

    async def _structured(self, address: Address, number: int) -> Reply:
        """Of a grammar that nobody has compiled yet."""
        schema = SCHEMA | {"title": str(number)}
        return await post(address, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "a"}], "max_tokens": 30, "temperature": 0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        })  # fmt: skip


async def memory_failures(
    points: int, *, seed: int = 1, places: Sequence[Place] = PLACES, model: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> MemoryReport:  # fmt: skip
    """Each place in turn, at a random one of its calls. ``model``: None for a tiny random one."""
    report, begun, draw = MemoryReport(), time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = model or str(write_tiny(Path(folder) / "tiny"))
        (Path(folder) / "site").mkdir()
        variables, shortage = environment(Path(folder) / "site")
        async with MarkedServer(model, "--dtype", "float32", "--max-num-batched-tokens", "16", env=variables) as server:
            await server.ready()
            attack = Attack(server, shortage, draw)
            await attack.begin()
            for point in range(points):
                place = places[point % len(places)]
                survived, of = report.parts.get(place.part, [0, 0])
                try:
                    lost = await attack.at(PLACES.index(place) + 1, place)
                    report.survived += 1
                    survived += 1
                    report.nothing_lost += lost is None
                    said = lost or "nothing lost"
                    if lost is not None:
                        report.statuses[lost] = report.statuses.get(lost, 0) + 1
                except (Unanswered, ValueError) as error:
                    said = f"{type(error).__name__}: {error}"
                    report.findings.append(f"point {point}, {place.part} {place.module}:{place.name}: {said}")
                    with contextlib.suppress(Unanswered):
                        await _ready_again(server)
                report.points += 1
                report.parts[place.part] = [survived, of + 1]
                tell(f"{point + 1}/{points} {place.part} {place.name}: {said}")
    report.seconds = time.monotonic() - begun
    return report


async def run_memory_failures(args: argparse.Namespace) -> tuple[bool, dict[str, Any]]:
    """As its command runs it."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    report = await memory_failures(args.points, seed=args.seed, model=args.model, tell=tell)
    return report.survived == report.points > 0, report.as_dict()


async def _ready_again(server: MarkedServer) -> None:
    for _ in range(200):
        with contextlib.suppress(Unanswered):
            body = {"prompt": "a", "max_tokens": 1}
            if (await post(server.address, "/v1/completions", body, seconds=5)).status == 200:
                return
        await asyncio.sleep(0.1)


def _failed(reply: Reply) -> dict[str, Any]:
    """The error that it is or ends with; empty: none."""
    if reply.status != 200:
        value = reply.json()
        return value["error"] if isinstance(value, dict) and isinstance(value.get("error"), dict) else {"": reply.body}
    for line in reply.body.splitlines() if reply.body.startswith(b"data: ") else ():
        if line.startswith(b'data: {"error"'):
            return json.loads(line[6:])["error"]
    if reply.body.startswith(b"data: ") and b"data: [DONE]" not in reply.body:
        return {"": "cut off"}
    return {}


def _said(reply: Reply) -> str:
    if not reply.body.startswith(b"data: "):
        value = reply.json()
        return value["choices"][0]["text"] if reply.status == 200 and value else ""
    events = [json.loads(line[6:]) for line in reply.body.splitlines() if line.startswith(b"data: {")]
    return "".join(choice.get("text", "") for event in events for choice in event.get("choices", ()))
