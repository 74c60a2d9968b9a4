"""The one table of limits, for every route: what is refused, before and after parsing.

``bound(name)`` makes a row the constraint of a field, so that no route has numbers of its own.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

__all__ = ["LIMITS", "Limit", "bound", "most"]


@attrs.frozen
class Limit:
    """``kind``: where it is applied: to bytes ("connection", "body"), to a field ("number", "length"), to a "text"."""

    name: str
    kind: str
    most: float
    unit: str
    what: str
    least: float | None = None  # of a number, or of a length
    above: bool = False  # ``least`` itself is refused


_ROWS = (
    Limit("header_bytes", "connection", 64 * 1024, "bytes", "request line and headers together"),
    Limit("headers", "connection", 100, "headers", "in a request"),
    Limit("header_seconds", "connection", 10, "seconds", "from the first byte of a request to the end of its headers"),
    Limit("idle_seconds", "connection", 60, "seconds", "that a connection may be silent between two requests"),
    Limit("write_seconds", "connection", 30, "seconds", "that a client may leave what it was sent unread"),
    Limit("body_seconds", "body", 60, "seconds", "from the end of the headers to the end of the body"),
    Limit("body_bytes", "body", 32 * 1024 * 1024, "bytes", "of a request's body"),
    Limit(
        "all_bodies_bytes", "body", 512 * 1024 * 1024, "bytes", "of all bodies that a process holds at the same time"
    ),
    Limit("commas", "body", 1_500_000, "commas", "in a body: about its values, of which each takes its time"),
    Limit("values", "body", 100_000, "values", "in a body: texts, names, lists and objects, not numbers"),
    Limit("digits", "body", 400, "characters", "of a number"),
    Limit("read_cpu_seconds", "body", 1, "seconds", "of CPU time for reading a large body, in a process of its own"),
    Limit("read_bytes", "body", 2**30, "bytes", "of memory for reading a large body, in that process"),
    Limit("depth", "body", 64, "levels", "of lists and objects in each other"),
    Limit("error_bytes", "body", 8 * 1024, "bytes", "of an error's body"),
    Limit("response_log_bytes", "body", 16 * 1024 * 1024, "bytes", "of a background response's events"),
    Limit("sequences", "body", 1024, "outputs", "of one request: its prompts times n"),
    Limit("template_seconds", "body", 10, "seconds", "for a chat template and the tokenizer"),
    Limit("n", "number", 128, "outputs", "of one prompt", 1),
    Limit("best_of", "number", 128, "outputs", "computed for one prompt", 1),
    Limit("max_tokens", "number", 2**31 - 1, "tokens", "of output", 0),
    Limit("max_completion_tokens", "number", 2**31 - 1, "tokens", "of output", 1),
    Limit("min_tokens", "number", 2**31 - 1, "tokens", "of output before its end may come", 0),
    Limit("logprobs", "number", 1_000_000, "tokens", "reported a position; -1: all", -1),
    Limit("top_logprobs", "number", 1_000_000, "tokens", "reported a position; -1: all", -1),
    Limit("prompt_logprobs", "number", 1_000_000, "tokens", "reported a position; -1: all", -1),
    Limit("temperature", "number", 1e6, "", "0: always the likeliest token", 0),
    Limit("top_p", "number", 1, "", "share of the likeliest tokens", 0, above=True),
    Limit("top_k", "number", 2**31 - 1, "tokens", "the likeliest; 0 or -1: all", -1),
    Limit("min_p", "number", 1, "", "share of the likeliest token's probability", 0),
    Limit("repetition_penalty", "number", 1e6, "", "of tokens that were there", 0, above=True),
    Limit("presence_penalty", "number", 2, "", "of tokens in the output", -2),
    Limit("frequency_penalty", "number", 2, "", "of each time that a token is in the output", -2),
    Limit("length_penalty", "number", 1e6, "", "of beam search", -1e6),
    Limit("seed", "number", 2**63 - 1, "", "-1: none", -1),
    Limit("priority", "number", 2**31 - 1, "", "smaller ones first", -(2**31)),
    Limit("truncate_prompt_tokens", "number", 2**31 - 1, "tokens", "the prompt's last; -1: what fits", -1),
    Limit("token_id", "number", 2**31 - 1, "", "an entry of a vocabulary", 0),
    Limit("stop", "length", 128, "stop strings", "of a request"),
    Limit("stop_string", "length", 1024, "characters", "of a stop string", 1),
    Limit("stop_token_ids", "length", 128, "ids", "of a request"),
    Limit("bad_words", "length", 256, "words", "of a request"),
    Limit("bad_word", "length", 1024, "characters", "of a bad word", 1),
    Limit("logit_bias", "length", 4096, "tokens", "of a request"),
    Limit("allowed_token_ids", "length", 300_000, "ids", "of a request", 1),
    Limit("prompts", "length", 1024, "prompts", "of a request"),
    Limit("prompt_ids", "length", 1_000_000, "token ids", "of a request's prompts"),
    Limit("detokenized_ids", "length", 262_144, "token ids", "that become a text"),
    Limit("characters", "text", 8_000_000, "characters", "of a text before it is tokenized; 64 a token of context"),
    Limit("messages", "length", 4096, "messages", "of a conversation", 1),
    Limit("parts", "length", 1024, "parts", "of a message's content"),
    Limit("arguments", "text", 50_000, "commas, brackets and braces", "in the arguments of a call"),
    Limit("tool_calls", "length", 128, "calls", "in a message"),
    Limit("tools", "length", 128, "tools", "of a request"),
    Limit("schema_bytes", "length", 64 * 1024, "bytes", "of a schema, grammar or regular expression"),
    Limit("name", "length", 256, "characters", "of a model's, a tool's or a role's name", 1),
    Limit("label", "length", 1024, "characters", "of an id or a note that a client brings"),
    Limit("metadata", "length", 64, "entries", "of tables that a client brings"),
    Limit("chat_template", "length", 256 * 1024, "characters", "of a chat template"),
    Limit("choice", "length", 1024, "choices", "of a structured output", 1),
)
LIMITS: dict[str, Limit] = {limit.name: limit for limit in _ROWS}


def most(name: str) -> int:
    return int(LIMITS[name].most)


def bound(name: str, about: str | None = None) -> Any:
    """A row as the constraint of a field: ``Annotated[int, bound("n")]``."""
    limit = LIMITS[name]
    if limit.kind == "number":
        least = {"gt" if limit.above else "ge": limit.least}
        return msgspec.Meta(**least, le=limit.most, description=about or _words(limit))
    shortest = None if limit.least is None else int(limit.least)
    return msgspec.Meta(min_length=shortest, max_length=int(limit.most), description=about or _words(limit))


def _words(limit: Limit) -> str:
    return " ".join(filter(None, (limit.unit, limit.what))).capitalize()
