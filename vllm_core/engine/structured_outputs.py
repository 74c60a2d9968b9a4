"""What a request's output must conform to. Names are vLLM's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.engine.errors import nearest
from vllm_core.engine.schema_checks import check_json, close_objects
from vllm_core.interfaces.grammar import GrammarSpec

__all__ = ["StructuredOutputsParams", "read_structured_outputs"]

# vLLM's field -> the kind that grammar backends are asked for.
KINDS = {
    "json": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "grammar": "ebnf",
    "json_object": "json_object",
    "structural_tag": "structural_tag",
}
OPTIONS = ("disable_fallback", "disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
MAX_CHARACTERS = {"json": 1 << 17, "structural_tag": 1 << 17}  # others:
USUAL_CHARACTERS = 1 << 16
MAX_CHOICES = 1024


@attrs.frozen(init=False)
class StructuredOutputsParams:
    """One of the first six is given; ``kind`` and ``specification`` are what a grammar backend compiles.

    disable_fallback               a specification that the best backend refuses goes to no other
    disable_any_whitespace         JSON on one line, with a space behind comma and colon
    disable_additional_properties  objects whose schema names properties, and does not say whether there are others,
                                   have no others; None: as the engine's setting says
    whitespace_pattern             regular expression of the white space in JSON
    """

    kind: str
    specification: str
    disable_fallback: bool = False
    disable_any_whitespace: bool = False
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None
    reasoning: Mapping[str, Any] | None = None  # options of the parser behind whose reasoning it begins; a chat's

    def __init__(
        self,
        *,
        json: str | dict[str, Any] | bool | None = None,
        regex: str | None = None,
        choice: Sequence[str] | None = None,
        grammar: str | None = None,
        json_object: bool | None = None,
        structural_tag: str | dict[str, Any] | None = None,
        disable_fallback: bool = False,
        disable_any_whitespace: bool = False,
        disable_additional_properties: bool | None = None,
        whitespace_pattern: str | None = None,
    ) -> None:
        fields = {
            "json": json,
            "regex": regex,
            "choice": choice,
            "grammar": grammar,
            "json_object": json_object or None,
            "structural_tag": structural_tag,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"structured_outputs needs one of {', '.join(KINDS)}, not {list(given) or 'none of them'}")
        ((name, value),) = given.items()
        options: dict[str, Any] = {
            "disable_fallback": disable_fallback,
            "disable_any_whitespace": disable_any_whitespace,
            "disable_additional_properties": disable_additional_properties,
        }
        for option, wanted in options.items():
            if type(wanted) is not bool and not (option == "disable_additional_properties" and wanted is None):
                raise ValueError(f"structured_outputs: {option} must be True or False, not {wanted!r:.80}")
        if whitespace_pattern is not None:
            whitespace_pattern = _pattern(whitespace_pattern)
        self.__attrs_init__(KINDS[name], _text(name, value), **options, whitespace_pattern=whitespace_pattern)

    def behind_reasoning(self, options: Mapping[str, Any]) -> StructuredOutputsParams:
        """The same for an output that begins with reasoning, which a parser with these options tells apart."""
        return self._with(reasoning=dict(options))

    def spec(self, *, fallback: bool = True, any_whitespace: bool = True, closed: bool = True) -> GrammarSpec:
        """For a backend; the arguments are what the engine's setting says."""
        text, own = self.specification, self.disable_additional_properties
        if self.kind == "json_schema" and (closed if own is None else own):
            text = json.dumps(close_objects(json.loads(text)))
        return GrammarSpec(
            kind=self.kind,
            text=text,
            fallback=fallback and not self.disable_fallback,
            any_whitespace=any_whitespace and not self.disable_any_whitespace,
            whitespace_pattern=self.whitespace_pattern or "",
        )

    def _with(self, **changes: Any) -> StructuredOutputsParams:
        other = object.__new__(type(self))
        fields = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        other.__attrs_init__(**{**fields, **changes})
        return other


def read_structured_outputs(value: Any) -> StructuredOutputsParams | None:
    """What stands in ``SamplingParams``: None, an instance, or a table of its fields."""
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"structured_outputs must be StructuredOutputsParams, not {value!r:.80}")
    known = (*KINDS, *OPTIONS)
    for name in value:
        if name not in known:
            raise ValueError(f"structured_outputs has no field {name!r}{nearest(str(name), known)}")
    return StructuredOutputsParams(**{name: v for name, v in value.items() if v is not None or name in KINDS})


def _text(name: str, value: Any) -> str:
    if name == "json_object":
        if value is not True:
            raise ValueError(f"structured_outputs: json_object must be True or left out, not {value!r:.80}")
        return ""
    if name == "choice":
        if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= MAX_CHOICES:
            raise ValueError(
                f"structured_outputs: choice must be a list of 1 to {MAX_CHOICES} texts, not {value!r:.80}"
            )
        if not all(isinstance(choice, str) and choice for choice in value):
            raise ValueError(f"structured_outputs: each choice must be a text that is not empty, not {value!r:.80}")
        if any("\0" in choice or _unpaired(choice) for choice in value):
            raise ValueError(f"structured_outputs: a choice has characters that are no text: {value!r:.80}")
        value = json.dumps(list(dict.fromkeys(value)))
    elif name in ("json", "structural_tag") and not isinstance(value, str):
        try:
            value = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"structured_outputs: {name} is no JSON: {error}") from None
    most = MAX_CHARACTERS.get(name, USUAL_CHARACTERS)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise ValueError(f"structured_outputs: {name} must be text of 1 to {most:,} characters, not {value!r:.80}")
    if "\0" in value or _unpaired(value):
        raise ValueError(f"structured_outputs: {name} has characters that are no text: NUL, or half of a pair")
    if name in ("json", "structural_tag"):
        check_json(name, value)
    return value


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 256 or "\0" in value or _unpaired(value):
        raise ValueError(
            f"structured_outputs: whitespace_pattern must be a short regular expression, not {value!r:.80}"
        )
    return value


def _unpaired(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
