"""Between fronts, processes that have requests, and the engine's: msgpack with fixed schemas, nothing else.

The engine has a ROUTER socket, each front a DEALER. Both ends are of one installation and have the
same lock; the socket lies in a folder of its owner only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vllm_core.engine.figures import Figures
from vllm_core.engine.messages import NewRequest, Update
from vllm_core.interfaces.grammar import Vocabulary

__all__ = [
    "Abort", "Add", "AskStats", "Broken", "Compare", "Down", "Failed", "Figures", "Gone", "Hello", "Leave", "Load",
    "Ready", "Reset", "Start", "Stats", "Stop", "Up", "Updates", "Warm", "Watch", "decode_down", "decode_start",
    "decode_up", "encode",
]  # fmt: skip


class Start(msgspec.Struct, frozen=True, tag=True):
    """On standard input, once: what to build, and for whom."""

    settings: dict[str, Any]
    digest: str  # of the caller's lock; another one is refused
    folder: str  # ``home.Home``
    front: str  # the first front, which alone may say ``Stop``
    pid: int  # its process: the engine ends with it


class Hello(msgspec.Struct, frozen=True, tag=True):
    """A front's first message. Answered by ``Ready`` or ``Failed``."""

    digest: str
    pid: int  # of the front: when it ends, its requests end


class Add(msgspec.Struct, frozen=True, tag=True):
    requests: list[NewRequest]


class Abort(msgspec.Struct, frozen=True, tag=True):
    request_ids: list[str]
    reason: str = "abort"  # as figures have it: "stop" or "error" where the text decided


class Reset(msgspec.Struct, frozen=True, tag=True):
    """Forget cached prefixes. Answered by ``Stats``."""

    call: int


class AskStats(msgspec.Struct, frozen=True, tag=True):
    """Answered by ``Stats``."""

    call: int


class Watch(msgspec.Struct, frozen=True, tag=True):
    """Send ``Figures`` from now on, or no more."""

    on: bool = True


class Warm(msgspec.Struct, frozen=True, tag=True):
    """Make ready what compiles grammars."""

    vocabulary: Vocabulary
    reasons: bool  # whether outputs may begin with reasoning, which a parser of the engine tells apart


class Compare(msgspec.Struct, frozen=True, tag=True):
    """This front chooses among engines: send it ``Load``."""


class Leave(msgspec.Struct, frozen=True, tag=True):
    """This front has gone. What runs for it is lost."""


class Gone(msgspec.Struct, frozen=True, tag=True):
    """The process of fronts has ended. From the engine's own thread only."""

    pid: int


class Broken(msgspec.Struct, frozen=True, tag=True):
    """Processes that the steps run in have ended. From the engine's own threads only."""

    reason: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End the process. What runs is lost."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    vocab_size: int
    longest: int  # tokens of a request, prompt and output together
    timings: dict[str, float]  # seconds by stage of the start
    pid: int = 0  # of the engine's process
    pages: int = 0  # of its cache
    page_tokens: list[int] = []  # a page, in each cache group


class Updates(msgspec.Struct, frozen=True, tag=True):
    updates: list[Update]


class Stats(msgspec.Struct, frozen=True, tag=True):
    """The engine between two steps."""

    call: int
    running: int  # requests
    waiting: int  # requests
    cache_usage: float  # share of the pages that are not free, 0 to 1
    prefix_queries: int  # prompt tokens that could have been found in the cache, since the start
    prefix_hits: int  # of those, found


class Load(msgspec.Struct, frozen=True, tag=True):
    """How much others want of the engine, for fronts that choose among engines. Sent when it has changed."""

    others: int  # requests of other fronts


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The engine has ended, or does not want this front, and why."""

    kind: str  # name of the exception
    error: str


Down = Hello | Add | Abort | Reset | AskStats | Watch | Warm | Compare | Leave | Gone | Broken | Stop
Up = Ready | Updates | Figures | Stats | Load | Failed
encode = msgspec.msgpack.Encoder().encode
decode_start = msgspec.msgpack.Decoder(Start).decode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
