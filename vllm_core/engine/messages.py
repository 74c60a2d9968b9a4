"""What callers and the engine tell each other, in one process or between two. Fixed schemas, no torch."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import msgspec

from vllm_core.engine.cache.hashing import ExtraKey
from vllm_core.interfaces.steps import RowSampling

__all__ = ["Line", "NewRequest", "Update"]


class Line(NamedTuple):
    """Log-probabilities of a position: of the token that came, then of the likeliest in falling order."""

    token_ids: list[int]  # 1 + k
    logprobs: list[float]  # 1 + k
    rank: int  # of the token that came; 1 is the likeliest


class NewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has passed all checks which its caller's side can make."""

    request_id: str
    token_ids: list[int]
    sampling: RowSampling
    stop_ids: list[int]  # any of them ends the output
    own_stop_ids: list[int] = []  # of those, the ones that the request named itself: the stop_reason
    max_total: int  # tokens, prompt and output together
    priority: int = 0
    arrival_time: float = msgspec.field(default_factory=time.time)  # seconds since the epoch
    reads_prefix: bool = True  # False: all of its prompt is computed
    num_output: int = 0  # of token_ids, at their end: output of an engine that has ended
    each_token: bool = False  # an update whenever there are tokens; False: one at the end
    sibling_of: str = ""  # id of the first sample of the same prompt (n > 1), in the others
    salt: bytes = b""  # cached prefixes are shared among equal ones only
    extra_keys: list[ExtraKey] = []  # adapters and media that the cache depends on
    order_args: dict[str, Any] = {}  # parameters that the scheduler's policy looks at


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened to a request since its last update."""

    request_id: str
    token_ids: list[int]  # new output tokens
    finish_reason: str | None = None
    stop_reason: int | None = None  # the stop token, if the request named it
    error: str = ""
    num_cached: int = 0  # tokens of the prompt found in the prefix cache
    num_preemptions: int = 0
    num_drafted: int = 0  # guesses so far that were verified
    num_accepted: int = 0  # output tokens so far that drafts gave
    first_token_time: float | None = None  # seconds since the epoch
    logprobs: list[Line] = []  # of token_ids, if asked for
    prompt_logprobs: list[Line] = []  # new ones; of the prompt's tokens from the second on, if asked for
