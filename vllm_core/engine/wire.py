"""Between a caller's process and the engine's: one frame a message, msgpack with fixed schemas, nothing else.

Both ends are of one installation, started from one lock; the socket lies in a folder of its owner only.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vllm_core.engine.figures import Figures
from vllm_core.engine.messages import NewRequest, Update

__all__ = [
    "Abort", "Add", "AskStats", "Down", "Failed", "Figures", "Ready", "Reset", "Start", "Stats", "Stop", "Up",
    "Updates", "Watch", "decode_down", "decode_up", "encode",
]  # fmt: skip


class Start(msgspec.Struct, frozen=True, tag=True):
    """On standard input, once: what to build, and where to listen."""

    settings: dict[str, Any]
    digest: str  # of the caller's lock; another one is refused
    address: str  # of the caller's socket


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
    """Send ``Figures`` from now on."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End the process. What runs is lost."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    vocab_size: int
    longest: int  # tokens of a request, prompt and output together
    timings: dict[str, float]  # seconds by stage of the start


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


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The engine has ended, and why."""

    kind: str  # name of the exception
    error: str


Down = Add | Abort | Reset | AskStats | Watch | Stop
Up = Ready | Updates | Figures | Stats | Failed
encode = msgspec.msgpack.Encoder().encode
decode_down = msgspec.msgpack.Decoder(Down).decode
decode_up = msgspec.msgpack.Decoder(Up).decode
