"""Between a gate and its nodes: msgpack with fixed schemas, beside frames of `engine.wire` that they only carry.

From a node    [report]                   or  [engine's number, front, frame]
To a node      [heard or refused]         or  [engine's number, front, frame]
"""

from __future__ import annotations

import re

import msgspec

from vllm_core.engine.home import Status

__all__ = ["BEAT", "FRONT", "LOOKS", "Heard", "Refused", "Report", "decode_answer", "decode_report", "encode"]

BEAT = 0.25  # seconds between two reports, and between two looks
LOOKS = 8  # in a row without a word from the other side: it is lost
FRONT = re.compile(rb"[0-9a-f]{16}")  # what fronts are called


class Report(msgspec.Struct, frozen=True, tag=True):
    """How a node's engines are. The first one asks to be let in; without engines it says goodbye."""

    version: str  # of vllm-core
    host: str
    session: int  # another one: all that was on its way between fronts and the node's engines is lost
    engines: dict[int, Status]


class Heard(msgspec.Struct, frozen=True, tag=True):
    """The gate is there, and the node one of its own."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    reason: str


encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_answer = msgspec.msgpack.Decoder(Heard | Refused).decode
