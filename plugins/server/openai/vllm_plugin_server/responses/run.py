"""One response while it is made: from the engine's outputs to its events, and to what it is in the end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from vllm_core.serving import RequestOutput
from vllm_plugin_server.chat.logprobs import chat_logprobs
from vllm_plugin_server.errors import ApiError
from vllm_plugin_server.responses.output import OutputItems

__all__ = ["Run", "new_id"]

Event = dict[str, Any]
CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


class Run:
    """``begin``, ``take`` each output, then ``end``, ``fail`` or ``cancel``: each gives numbered events.

    response   as it stands
    top        how many of the likeliest tokens are told, with log-probabilities
    """

    def __init__(self, response: dict[str, Any], *, one_call: bool = False, top: int = 0) -> None:
        self.response = response
        self.output: RequestOutput | None = None  # the last
        self._items = OutputItems(new_id, one_call=one_call)
        self._top, self._tokens, self._events = top, 0, 0

    def begin(self) -> list[Event]:
        """Events of a response that nothing is known of yet; queued ones say so."""
        first = self._about("response.created")
        if self.response["status"] == "queued":
            return self._numbered([first, self._about("response.queued")])
        return self._numbered([first, self._about("response.in_progress")])

    def take(self, output: RequestOutput) -> list[Event]:
        events = []
        if self.response["status"] == "queued":
            self.response["status"] = "in_progress"
            events.append(self._about("response.in_progress"))
        self.output = output
        completion = output.outputs[0]
        logprobs = ()
        if completion.logprobs is not None:
            logprobs = chat_logprobs(completion.logprobs[self._tokens :], self._top, False)["content"]
        self._tokens = len(completion.token_ids)
        return self._numbered(events + self._items.add(completion.delta, logprobs))

    @property
    def over(self) -> bool:
        return self.response["status"] not in ("queued", "in_progress")

    @property
    def reasoning(self) -> str:
        """All of it so far."""
        completion = None if self.output is None else self.output.outputs[0]
        return "" if completion is None else completion.reasoning or ""

    def end(self, reasoning_tokens: int = 0) -> list[Event]:
        """The last output has been taken."""
        assert self.output is not None
        cut = self.output.outputs[0].finish_reason != "stop"
        status = "incomplete" if cut else "completed"
        events = self._items.close(status)
        if cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        return self._over(status, events, reasoning_tokens)

    def fail(self, error: ApiError) -> list[Event]:
        self.response["error"] = {"code": CODES.get(error.status, "server_error"), "message": error.message[:1024]}
        return self._over("failed", self._items.close("incomplete") if self._items.begun else [])

    def cancel(self) -> None:
        """No event tells of it: its stream ends."""
        if self._items.begun:
            self._items.close("incomplete")
        self._over("cancelled", [])

    # ---- inside

    def _over(self, status: str, events: list[Event], reasoning_tokens: int = 0) -> list[Event]:
        self.response |= {"status": status, "output": self._items.items}
        if status == "completed":
            self.response["completed_at"] = int(time.time())
        if self.output is not None:
            self.response["usage"] = _usage(self.output, reasoning_tokens)
        return self._numbered([*events, self._about(f"response.{status}")])

    def _about(self, event: str) -> Event:
        return {"type": event, "response": dict(self.response)}

    def _numbered(self, events: Iterable[Event]) -> list[Event]:
        found = []
        for event in events:
            found.append({"type": event["type"], "sequence_number": self._events, **event})
            self._events += 1
        return found


def _usage(output: RequestOutput, reasoning_tokens: int) -> dict[str, Any]:
    prompt, made = len(output.prompt_token_ids), len(output.outputs[0].token_ids)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": output.num_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": min(reasoning_tokens, made)},
        "total_tokens": prompt + made,
    }
