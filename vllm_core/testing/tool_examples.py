"""What every tool parser must read, however the model writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

__all__ = ["STANDARD", "TOOLS", "ToolExample"]

Arguments = dict[str, Any]


@attrs.frozen
class ToolExample:
    """A text of a model, and what is in it."""

    text: str
    calls: Sequence[tuple[str, Arguments]] = ()
    content: str = ""


STANDARD: dict[str, list[tuple[str, Arguments]]] = {
    "one call": [("get_weather", {"city": "Paris", "unit": "celsius"})],
    "no arguments": [("list_files", {})],
    "nested": [("plan", {"a": {"b": [1, {"c": "}"}], "d": {}}, "e": [[], [[]], {}]})],
    "strings": [("write", {"path": "C:\\tmp\\", "text": 'He said "hi" {[\n\tand left]}; it\'s \\ 100 % \x08'})],
    "numbers": [("set", {"i": -1, "f": 2.5e-3, "big": 12345678901234567890, "yes": True, "no": False, "none": None})],
    "unicode": [("say", {"text": "你好, 👋🏽 naïve \u2028 𝄞", "größe": "1 €"})],
    "three at once": [("add", {"a": 1}), ("add", {"a": 2}), ("get_weather", {"city": "Oslo"})],
}
"""Calls by what is in them: (name, arguments)."""

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("get_weather", "list_files", "plan", "write", "set", "say", "add")
]
