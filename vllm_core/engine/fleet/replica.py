"""One of the engines behind a front."""

from __future__ import annotations

from typing import Protocol

from vllm_core.engine import wire
from vllm_core.engine.attached import Attached
from vllm_core.engine.errors import EngineDeadError
from vllm_core.engine.fleet.load import Load
from vllm_core.engine.link import Link

__all__ = ["Replica", "Requester"]


class Requester(Protocol):
    """Who has requests at several engines: ``attached.Customer``, told of which."""

    def lost(self, replica: Replica, cause: str, back: bool) -> None: ...

    def back(self, replica: Replica, link: Link) -> None: ...

    def read(self, replica: Replica, message: wire.Up) -> None: ...

    def open_requests(self, replica: Replica) -> list[str]: ...


class Replica:
    """``attached.Customer`` of its engine. ``number`` is the engine's in the fleet."""

    def __init__(self, number: int, engine: Attached, rows: int, title: str = "") -> None:
        self.number, self.engine, self.title = number, engine, title
        self.load = Load(rows)
        self.dead: EngineDeadError | None = None  # for good
        self.cause = ""  # of the last end
        self.requester: Requester

    @property
    def ready(self) -> bool:
        return self.engine.state.now == "ready"

    @property
    def serves(self) -> bool:
        """Whether a request that it gets now will be answered, as far as anybody knows."""
        return self.ready and not self.engine.ending and not self.engine.stuck

    def send(self, message: wire.Down) -> None:
        self.engine.link.send(message)

    def lost(self, cause: str, back: bool) -> None:
        self.cause = self.title + cause
        if not back:
            self.dead = EngineDeadError(self.cause)
        self.load.others = 0
        self.requester.lost(self, cause, back)

    def back(self, link: Link) -> None:
        self.requester.back(self, link)

    def read(self, message: wire.Up) -> None:
        if isinstance(message, wire.Load):
            self.load.others = message.others
        else:
            self.requester.read(self, message)

    def open_requests(self) -> list[str]:
        return self.requester.open_requests(self)
