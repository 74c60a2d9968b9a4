"""What an engine and the processes of its ranks tell each other: msgpack with fixed schemas. No torch."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from vllm_core.interfaces.steps import StepPlan, StepResult

__all__ = ["Down", "Failed", "Result", "Start", "Started", "Step", "Up", "decode_down", "decode_up", "encode"]


class Start(msgspec.Struct, frozen=True, tag=True):
    """The first message to a rank: what to build, and where the others are."""

    settings: dict[str, Any]
    digest: str  # of the engine's lock; another one is refused
    rank: int
    local_rank: int  # on its host
    num_pages: int
    meeting: str  # where ranks find each other: a file in a folder of its owner alone, or tcp://HOST:PORT
    address: str  # of the rank's host, for the others
    engine: int = 0  # process id: the rank ends with it; 0: it is on another host


class Step(msgspec.Struct, frozen=True, tag=True):
    """Run this step; answered by `Result`, from one rank."""

    plan: StepPlan


class Started(msgspec.Struct, frozen=True, tag=True):
    """The rank is ready."""

    vocab_size: int
    lookahead: int
    memory: dict[str, int]  # bytes by purpose
    timings: dict[str, float]  # seconds by stage


class Result(msgspec.Struct, frozen=True, tag=True):
    result: StepResult


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The rank ends, and why."""

    error: str
    kind: str  # name of the exception
    waited: bool = False  # for another rank, whose fault it is then
    step: int = -1


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]
    raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


def _from_plain(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        dtype, shape, data = value
        return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
    raise TypeError(f"a {kind.__name__} cannot be received")


Down = Start | Step
Up = Started | Result | Failed
encode = msgspec.msgpack.Encoder(enc_hook=_to_plain).encode
decode_down = msgspec.msgpack.Decoder(Down, dec_hook=_from_plain).decode
decode_up = msgspec.msgpack.Decoder(Up, dec_hook=_from_plain).decode
