"""Items as they are kept and listed: each with an id and a type, contents as parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vllm_plugin_server.responses.run import new_id

__all__ = ["kept_items", "page_of"]

PREFIXES = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def kept_items(given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_kept(item) for item in given]


def _kept(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or "message"
    found = {**item, "type": kind, "id": item.get("id") or new_id(PREFIXES.get(kind, "msg"))}
    if kind == "message" and isinstance(item["content"], str):
        part = "output_text" if item["role"] == "assistant" else "input_text"
        found["content"] = [{"type": part, "text": item["content"]}]
    return found


def page_of(items: list[dict[str, Any]], after: str | None, limit: int, newest_first: bool) -> dict[str, Any]:
    """A page of a list, as OpenAI gives it; ``after`` is the id of the item before it."""
    ordered = items[::-1] if newest_first else items
    ids = [item["id"] for item in ordered]
    begin = ids.index(after) + 1 if after in ids else 0 if after is None else len(ids)
    page = ordered[begin : begin + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin + limit < len(ordered),
    }
