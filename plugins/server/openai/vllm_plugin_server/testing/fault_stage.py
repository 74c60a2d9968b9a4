"""What a fault of R12 works on, and what a kind of fault is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from vllm_plugin_server.bench.ask import Outcome, Sample, Wish, ask
from vllm_plugin_server.bench.client import Client
from vllm_plugin_server.testing.inject import tell
from vllm_plugin_server.testing.own_server import OwnServer
from vllm_plugin_server.testing.watch import family
from vllm_plugin_server.testing.wire import Unanswered, post

__all__ = ["STREAMS", "Act", "Kind", "Stage", "kind_of"]

STREAMS = 6


@attrs.define
class Stage:
    """What a fault has to work on."""

    server: OwnServer
    folder: Path  # of `inject`
    model: str
    beside: list[asyncio.Task[Any]] = attrs.field(factory=list)  # of the fault, ended after it

    def engine(self, fault: str) -> None:
        tell(self.folder, self.server.engine(), fault)

    def front(self, fault: str) -> None:
        tell(self.folder, self.server.pid, fault)

    def process(self, module: str) -> int:
        for pid in family(self.server.pid)[1:]:
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise Unanswered(f"there is no process of {module}")

    @staticmethod
    def signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def home(self) -> Path:
        """The folder of the engine, from its sockets."""
        for line in Path("/proc/net/unix").read_text().splitlines():
            path = Path(line.split()[-1])
            if path.name == "engine" and path.parent.parent == self.folder.parent / "tmp":
                return path.parent
        raise Unanswered("the engine's socket is not to be found")

    async def load(self, streams: int, tokens: int = 1500) -> None:
        """Streams that run until the next fault."""
        client = Client(self.server.url)
        wish = Wish(backend="openai", route="/v1/completions", model=self.model, ignore_eos=True)

        async def go_on(number: int) -> None:
            while True:
                outcome: Outcome = await ask(client, wish, Sample(f"Number {number}", 1, tokens), number)
                if not outcome.success:
                    await asyncio.sleep(0.2)

        self.beside += [asyncio.create_task(go_on(i)) for i in range(streams)]

    async def ask(self, **fields: Any) -> int:
        """The status of a completion; 0 if there is no answer."""
        body = {"model": self.model, "prompt": "One", "max_tokens": 8, "temperature": 0, **fields}
        try:
            return (await post(self.server.address, "/v1/completions", body, seconds=30)).status
        except Unanswered:
            return 0

    async def rest(self) -> None:
        for task in self.beside:
            task.cancel()
        await asyncio.gather(*self.beside, return_exceptions=True)
        self.beside.clear()


Act = Callable[[Stage], Awaitable[Callable[[], None] | None]]


@attrs.frozen
class Kind:
    """A fault. ``act`` may return what undoes it; ``allowed``: seconds that are the fault's own before it is one."""

    name: str
    red: bool
    text: str
    act: Act
    load: int = STREAMS
    fronts: int = 1
    allowed: float = 0.0


def kind_of(kinds: list[Kind], name: str, *, red: bool, text: str, **more: Any) -> Callable[[Act], Act]:
    """Decorates what brings the fault: it is one of ``kinds`` then."""

    def note(act: Act) -> Act:
        kinds.append(Kind(name, red, text, act, **more))
        return act

    return note
