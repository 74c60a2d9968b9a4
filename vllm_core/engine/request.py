"""One request inside the engine: its tokens, its place on the device, and how far it got.

States::

    WAITING --admit--> RUNNING --finish--> FINISHED
                        |   ^
                 preempt|   |admit
                        v   |
                      PREEMPTED          any state --finish--> FINISHED

Steps are launched before the tokens of the last ones are known. So two counts are kept: what the
host knows (``token_ids``) and the most that may be true after all launched steps (``bound``).
"""

from __future__ import annotations

import enum
import time
from typing import Any

import attrs

from vllm_core.engine.cache.hashing import ExtraKey
from vllm_core.engine.messages import Line
from vllm_core.interfaces.steps import RowSampling

__all__ = ["FinishReason", "Request", "State"]

NO_ROW = -1


class State(enum.IntEnum):
    WAITING = 0
    RUNNING = 1
    PREEMPTED = 2  # waits again; computed so far is forgotten, sampled so far is not
    FINISHED = 3


class FinishReason(enum.StrEnum):
    STOP = "stop"  # end of text, a stop token or a stop string
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@attrs.define(slots=True, kw_only=True, eq=False)
class Request:
    request_id: str
    token_ids: list[int]  # prompt, then every output token the host has seen
    num_prompt: int
    sampling: RowSampling
    stop_ids: frozenset[int]  # any of them ends the request
    max_total: int  # tokens, prompt and output together
    own_stop_ids: frozenset[int] = frozenset()  # of stop_ids, those that the request named itself
    reads_prefix: bool = True  # False: all of its prompt is computed
    salt: bytes = b""  # cached prefixes are shared among equal ones only
    extra_keys: tuple[ExtraKey, ...] = ()  # adapters and media that its cache depends on
    sibling_of: str = ""  # id of the first sample of the same prompt, if it is another one of it
    each_token: bool = False  # its caller wants to know of each; else at the end
    order: int = 0  # counts arrivals
    priority: int = 0  # smaller is more urgent, to policies that look at it
    order_args: dict[str, Any] = attrs.field(factory=dict)  # its parameters, for those that look at them
    key: tuple[float, ...] = ()  # the policy's: requests with smaller ones run first
    arrival: float = attrs.field(factory=time.monotonic)  # seconds

    state: State = State.WAITING
    row: int = NO_ROW
    prefill_end: int = 0  # tokens to compute before the first sample after admission
    bound: int = 0  # cached tokens, at most, once every launched step is done
    in_flight: int = 0  # steps launched with it and not retired
    sampled_in: int = -1  # the last step launched in which it samples; kept where a pipeline has several stages
    num_cached: int = -1  # prompt tokens found in the prefix cache at first admission; -1: not admitted yet
    num_preemptions: int = 0
    num_drafted: int = 0  # guesses that were verified for it
    num_accepted: int = 0  # output tokens that were drafted, beyond the one that each step gives
    cache: Any = None  # what the cache manager keeps for it
    grammar: Any = None  # ``grammars.Entry``, held until it has ended; None: its output is free
    family: Any = None  # ``family.Family``, if its prompt has several samples
    logprobs: list[Line] = attrs.field(factory=list)  # of each output token, if asked for
    prompt_logprobs: list[Line] = attrs.field(factory=list)  # of the prompt's tokens from the second on
    first_token_time: float | None = None  # seconds since the epoch
    started: float | None = None  # when it was first admitted; seconds, monotonic, as all times below
    first_token: float | None = None
    last_token: float | None = None
    metered: int = 0  # output tokens that figures were made of
    told: int = 0  # output tokens that the caller was told of
    carried: int = 0  # output tokens of an engine that has ended: they have no line in ``logprobs``
    told_prompt: int = 0  # lines of prompt_logprobs that it was told of

    finish_reason: FinishReason | None = None
    stop_reason: int | None = None  # the stop token, if the request named it
    error: str = ""

    @property
    def num_output(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt :]

    @property
    def prompt_token_ids(self) -> list[int]:
        return self.token_ids[: self.num_prompt]

    def place(self, end: int, lookahead: int) -> int:
        """Tokens that need a place in the cache when a step ends at ``end`` and guesses go on from there.

        Behind the last token that the request can get, guesses are of no use.
        """
        return max(end, min(end + lookahead, self.max_total))

    @property
    def finished(self) -> bool:
        return self.state is State.FINISHED

    def finish(self, reason: FinishReason, stop_reason: int | None = None, error: str = "") -> None:
        self.state = State.FINISHED
        self.finish_reason = reason
        self.stop_reason = stop_reason
        self.error = error
