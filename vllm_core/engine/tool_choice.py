"""Calls of tools that a request forces: what its output must conform to, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.engine.errors import nearest
from vllm_core.engine.structured_outputs import StructuredOutputsParams
from vllm_core.text.pieces import Pieces, Reading
from vllm_core.text.tools import StreamedToolParser

__all__ = ["ForcedCalls", "ToolChoice", "read_tool_choice"]

MODES = ("none", "auto", "required")
LOOKS = "{'type': 'function', 'function': {'name': …}}"


@attrs.frozen
class ToolChoice:
    """OpenAI's ``tool_choice``."""

    mode: str  # one of MODES, or "named"
    name: str = ""  # of the tool that must be called, if it is "named"
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def forced(self) -> bool:
        return self.mode in ("required", "named")

    def format(self) -> StructuredOutputsParams:
        """What the output conforms to: a list of calls, or the arguments of the one that was named. As in vLLM."""
        parameters = {_name(tool): _parameters(tool) for tool in self.tools}
        if self.mode == "named":
            return StructuredOutputsParams(json=parameters[self.name])
        # Each tool's schema keeps its own references: it moves as a whole.
        inside = {f"tool_{i}": _moved(schema, f"#/$defs/tool_{i}") for i, schema in enumerate(parameters.values())}
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": name}, "parameters": {"$ref": f"#/$defs/tool_{i}"}},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
            for i, name in enumerate(parameters)
        ]
        items = calls[0] if len(calls) == 1 else {"anyOf": calls}
        return StructuredOutputsParams(json={"$defs": inside, "type": "array", "minItems": 1, "items": items})


def read_tool_choice(given: Any, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """``given`` as OpenAI's API has it, None for the default. ``ValueError`` says what is wrong."""
    if given is None:
        return ToolChoice("auto" if tools else "none", tools=tools)
    if isinstance(given, str):
        if given not in MODES:
            known = ", ".join(map(repr, MODES))
            raise ValueError(f"tool_choice must be {known} or a function, not {given!r:.80}{nearest(given, MODES)}")
        if given == "required" and not tools:
            raise ValueError("tool_choice is 'required', and there are no tools to call")
        if given == "required":
            _check(tools)
        return ToolChoice(given if tools else "none", tools=tools)
    function = given.get("function") if isinstance(given, Mapping) and given.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"tool_choice must look like {LOOKS}, not {given!r:.80}")
    _check(tools)
    names = [_name(tool) for tool in tools]
    if name not in names:
        raise ValueError(f"tool_choice names {name!r:.80}, and tools are {', '.join(names) or 'none'}")
    return ToolChoice("named", name, tools)


class ForcedCalls(StreamedToolParser):
    """Reads what ``ToolChoice.format`` describes. ``name``: of the only tool; "": a list of calls."""

    markers = ()

    def __init__(self, name: str) -> None:
        super().__init__(None, ())  # type: ignore[arg-type]  # it looks for no marker
        self._name = name

    def prepare(self, options: dict[str, Any]) -> dict[str, Any]:
        return options

    def read(self, text: Pieces) -> Reading[None]:
        yield from text.space()
        if self._name and (yield from text.peek()):
            self.call(self._name)
            yield from self.arguments_object(text)
        elif (yield from text.passes("[")):
            yield from text.space()
            while (yield from text.peek()) == "{" and (yield from self.call_object(text, "")):
                yield from text.space()
                if not (yield from text.passes(",")):
                    break
                yield from text.space()
            yield from text.passes("]")
        while (yield from text.peek()):
            self.content(text.take())


def _check(tools: Sequence[Mapping[str, Any]]) -> None:
    names = set()
    for i, tool in enumerate(tools):
        name = _name(tool)
        if not name:
            raise ValueError(f"tool {i} must look like {LOOKS}, not {tool!r:.80}")
        if name in names:
            raise ValueError(f"two tools are called {name!r:.80}, so none of them can be asked for")
        names.add(name)
        if not isinstance(_parameters(tool), Mapping):
            raise ValueError(f"parameters of tool {name!r:.80} must be a JSON schema, not {_parameters(tool)!r:.80}")


def _name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""


def _parameters(tool: Mapping[str, Any]) -> Any:
    found = tool["function"].get("parameters")
    return {"type": "object"} if found is None else found


def _moved(schema: Any, place: str) -> Any:
    """The schema as it reads at another place of a document: its references begin there."""
    if isinstance(schema, Mapping):
        moved = {key: _moved(value, place) for key, value in schema.items()}
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref.startswith("#"):
            moved["$ref"] = place + ref[1:]
        return moved
    return [_moved(item, place) for item in schema] if isinstance(schema, list) else schema
