"""What a request's output must conform to. Names are vLLM's.

A slot so far: requests are read and checked here, and refused where they are prepared, because no
grammar constrains the sampler yet (hook ``grammar_backend``, contract ``interfaces.grammar``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from vllm_core.engine.errors import nearest

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
MAX_CHARACTERS = 1 << 16
MAX_CHOICES = 1024


@attrs.frozen(init=False)
class StructuredOutputsParams:
    """One of the fields is given; ``kind`` and ``specification`` are what a grammar backend compiles."""

    kind: str
    specification: str

    def __init__(
        self,
        *,
        json: str | dict[str, Any] | None = None,
        regex: str | None = None,
        choice: Sequence[str] | None = None,
        grammar: str | None = None,
        json_object: bool | None = None,
        structural_tag: str | None = None,
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
        self.__attrs_init__(KINDS[name], _text(name, value))


def read_structured_outputs(value: Any) -> StructuredOutputsParams | None:
    """What stands in ``SamplingParams``: None, an instance, or a table of its fields."""
    if value is None or isinstance(value, StructuredOutputsParams):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"structured_outputs must be StructuredOutputsParams, not {value!r:.80}")
    for name in value:
        if name not in KINDS:
            raise ValueError(f"structured_outputs has no field {name!r}{nearest(str(name), KINDS)}")
    return StructuredOutputsParams(**value)


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
        value = json.dumps(list(value))
    elif name == "json" and isinstance(value, dict):
        try:
            value = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"structured_outputs: json is no JSON schema: {error}") from None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHARACTERS:
        raise ValueError(
            f"structured_outputs: {name} must be text of 1 to {MAX_CHARACTERS:,} characters, not {value!r:.80}"
        )
    return value
