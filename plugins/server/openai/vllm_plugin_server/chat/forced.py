"""Calls that a request insists on: the schema that the answer must conform to, and the calls read out of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_core.serving import ToolCall, ToolDelta

__all__ = ["Forced", "schema_of"]

_ANY = {"type": "object"}


def schema_of(tools: Sequence[Mapping[str, Any]], name: str | None, parallel: bool) -> dict[str, Any]:
    """``name``: the arguments of that tool. None: a list of calls of any of them."""
    parameters = {tool["function"]["name"]: tool["function"].get("parameters") or _ANY for tool in tools}
    if name is not None:
        return parameters[name]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"type": "string", "enum": [tool]}, "parameters": schema},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for tool, schema in parameters.items()
    ]
    items = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"type": "array", "minItems": 1, "items": items, **({} if parallel else {"maxItems": 1})}


class Forced:
    """Reads the answers to such a request: arguments as they come, or whole calls of a list one by one."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._text = ""
        self._calls: list[ToolCall] = []
        self._at = 0  # characters that are read

    def feed(self, text: str) -> tuple[ToolDelta, ...]:
        self._text += text
        if self._name is None:
            return self._listed()
        if not text and self._calls:
            return ()
        first = not self._calls
        call = ToolCall(name=self._name, arguments=self._text, id=self._calls[0].id if self._calls else _call_id())
        self._calls = [call]
        return (ToolDelta(index=0, name=call.name if first else "", id=call.id if first else "", arguments=text),)

    def _listed(self) -> tuple[ToolDelta, ...]:
        found = []
        while True:
            start = self._text.find("{", self._at)
            if start < 0:
                break
            try:
                value, self._at = _decoder.raw_decode(self._text, start)
            except ValueError:  # not whole yet
                break
            arguments = json.dumps(value.get("parameters", {}), ensure_ascii=False)
            call = ToolCall(name=str(value.get("name", "")), arguments=arguments, id=_call_id())
            found.append(ToolDelta(index=len(self._calls), name=call.name, id=call.id, arguments=arguments))
            self._calls.append(call)
        return tuple(found)

    @property
    def calls(self) -> list[ToolCall]:
        return list(self._calls)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


_decoder = json.JSONDecoder()
