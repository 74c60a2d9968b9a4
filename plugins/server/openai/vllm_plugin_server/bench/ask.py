"""One request of a benchmark: what is sent, and when what came of it."""

from __future__ import annotations

import time
from typing import Any

import attrs
import msgspec

from vllm_plugin_server.bench.client import BadAnswer, Client
from vllm_plugin_server.bench.sse import Events

__all__ = ["BACKENDS", "Outcome", "Sample", "Wish", "ask"]

# vLLM's names of what a server understands, and the route of each.
BACKENDS = {
    "openai": "/v1/completions",
    "vllm": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
}


@attrs.frozen
class Sample:
    """A prompt of a data set. Lengths in tokens; of a chat without what its template adds."""

    prompt: str | list[int]
    prompt_len: int
    output_len: int


@attrs.frozen(kw_only=True)
class Wish:
    """What all requests of a run have in common."""

    backend: str
    route: str
    model: str
    extra: dict[str, Any] = attrs.field(factory=dict)  # fields of the body
    ignore_eos: bool = False
    logprobs: int | None = None
    id_prefix: str = ""

    def body(self, sample: Sample) -> bytes:
        fields: dict[str, Any] = {"model": self.model}
        if self.backend == "openai-chat":
            fields["messages"] = [{"role": "user", "content": sample.prompt}]
            fields["max_completion_tokens"] = sample.output_len
            if self.logprobs is not None:
                fields |= {"logprobs": True, "top_logprobs": self.logprobs}
        else:
            fields |= {"prompt": sample.prompt, "max_tokens": sample.output_len}
            if self.logprobs is not None:
                fields["logprobs"] = self.logprobs
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            fields["ignore_eos"] = True
        return msgspec.json.encode(fields | self.extra)


@attrs.define(slots=True)
class Outcome:
    """Seconds; ``start_time`` on the clock of ``time.perf_counter``."""

    prompt_len: int
    success: bool = False
    start_time: float = 0.0
    ttft: float = 0.0
    itl: list[float] = attrs.field(factory=list)  # between pieces of text
    latency: float = 0.0
    queue_time: float = 0.0  # waited for --max-concurrency
    output_tokens: int = 0
    text: str = ""
    error: str = ""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class _Watch:
    """Times the events of one stream."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.events = Events()
        self.last = 0.0  # when text came last
        self.parts: list[str] = []
        self.finished = False
        self.error = ""

    def __call__(self, piece: bytes, now: float) -> None:
        for data in self.events.feed(piece):
            if data == b"[DONE]":
                self.finished = True
                continue
            event = _decode(data)
            if event.error:
                self.error = f"in the stream: {str(event.error)[:300]}"
            if event.usage is not None:
                self.outcome.output_tokens = event.usage.completion_tokens
            for choice in event.choices or ():
                self._choice(choice, now)

    def _choice(self, choice: _Choice, now: float) -> None:
        text, delta = choice.text, choice.delta
        if delta is not None:
            text = delta.content or delta.reasoning or delta.reasoning_content or ""
            if not (text or delta.tool_calls):  # who speaks, or that nothing more comes: no token yet
                text = None
        if choice.finish_reason is not None:
            self.finished = True
            if not text:
                text = None if self.last else ""  # an answer of no text: its end is all that comes
        if text is None:
            return
        if self.last:
            self.outcome.itl.append(now - self.last)
        else:
            self.outcome.ttft = now - self.outcome.start_time
        self.last = now
        self.parts.append(text)


async def ask(client: Client, wish: Wish, sample: Sample, number: int = 0) -> Outcome:
    """Send one request and read its stream. What goes wrong is in the outcome, never raised."""
    outcome = Outcome(sample.prompt_len)
    watch = _Watch(outcome)
    body = wish.body(sample)
    headers = f"X-Request-Id: {wish.id_prefix}{number}\r\n".encode() if wish.id_prefix else b""
    outcome.start_time = time.perf_counter()
    try:
        answer = await client.exchange("POST", wish.route, body, on_body=watch, headers=headers)
        outcome.latency = time.perf_counter() - outcome.start_time
        outcome.error = _trouble(answer.status, answer.body, watch)
    except (OSError, BadAnswer, msgspec.DecodeError) as error:
        outcome.latency = time.perf_counter() - outcome.start_time
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.text = "".join(watch.parts)
    outcome.output_tokens = outcome.output_tokens or len(watch.parts)  # a server that sends no usage
    outcome.success = not outcome.error
    return outcome


def _trouble(status: int, body: bytes, watch: _Watch) -> str:
    if status != 200:
        return f"HTTP {status}: {body[:300].decode('utf-8', 'replace')}"
    if watch.error:
        return watch.error
    if not watch.last:
        return "HTTP 200, but no token came" + ("" if watch.finished else " and no end of a stream")
    return "" if watch.finished else "the stream ended without a finish_reason and without [DONE]"
