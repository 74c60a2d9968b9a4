"""What a caller gets back. Shapes and names are vLLM's."""

from __future__ import annotations

import attrs

from vllm_core.engine.logprobs import Logprob
from vllm_core.interfaces.tool_parser import ToolCall, ToolDelta

__all__ = ["CompletionOutput", "Logprob", "ParsedDelta", "RequestMetrics", "RequestOutput", "ToolCall", "ToolDelta"]


@attrs.frozen(kw_only=True)
class ParsedDelta:
    """What parsers made of a piece of an output. A call's first part has its name and id."""

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


@attrs.define(slots=True, kw_only=True)
class CompletionOutput:
    """One continuation of a prompt."""

    index: int = 0
    text: str = ""
    token_ids: list[int] = attrs.field(factory=list)
    cumulative_logprob: float | None = None  # of all its tokens, if logprobs were asked for
    logprobs: list[dict[int, Logprob]] | None = None  # of each token: its own, and of the likeliest
    finish_reason: str | None = None  # "stop", "length", "abort", "error"; None while it runs
    stop_reason: int | str | None = None  # the stop token or stop string that was met

    # Of chats, by the parsers of the model; ``text`` stays the whole of it.
    reasoning: str | None = None  # None: no parser looked for it
    content: str | None = None  # the answer: without reasoning and calls; None: no parser looked at the text
    tool_calls: list[ToolCall] = attrs.field(factory=list)
    delta: ParsedDelta | None = None  # what came since the output before this one, in a stream

    @property
    def reasoning_content(self) -> str | None:
        """Another name of ``reasoning``."""
        return self.reasoning

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None


@attrs.define(slots=True, kw_only=True)
class RequestMetrics:
    """Times in seconds since the epoch; None for what did not happen (yet).

    num_drafts            guesses that were verified, places without one included
    num_accepted_drafts   output tokens that speculative decoding saved a step each: with n output tokens, a step
                          gave n / (n - num_accepted_drafts) of them
    engine                number of the engine that it is with, among several (data_parallel_size)
    """

    arrival_time: float
    first_token_time: float | None = None
    finished_time: float | None = None
    num_preemptions: int = 0
    num_drafts: int = 0
    num_accepted_drafts: int = 0
    engine: int = 0

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from arrival."""
        return None if self.first_token_time is None else self.first_token_time - self.arrival_time


@attrs.define(slots=True, kw_only=True)
class RequestOutput:
    """A request's state of affairs: final if ``finished``, else all that is certain so far."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None  # of each token of the prompt; the first has none
    num_cached_tokens: int = 0  # of the prompt, taken from the prefix cache
    error: str = ""  # why it failed, if finish_reason is "error"
