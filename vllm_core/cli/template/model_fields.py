"""The fields of a new model's Config, and Python's text of values."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

__all__ = ["ROPE", "Field", "Fields", "python"]

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
EPS = ("rms_norm_eps", "layer_norm_eps", "layernorm_epsilon", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
ACT = ("hidden_act", "hidden_activation", "activation_function")
ROPE = ("rope_parameters", "rope_theta", "rope_scaling")


@attrs.frozen
class Field:
    """A line of the model's Config. ``default``: Python's text of it, "" if there is none."""

    name: str
    type: str
    default: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + (self.default and f" = {self.default}")


class Fields:
    """The fields of the model's Config, and what is asked of them."""

    def __init__(
        self, full: Mapping[str, Any], defaults: Mapping[str, Any], flags: Mapping[str, Collection[str]]
    ) -> None:
        self.full, self.defaults, self.flags = full, defaults, flags
        self.notes: list[str] = []
        self.fields = list(self._all())

    def _all(self) -> Iterator[Field]:
        for name in SIZES:
            yield Field(name, "int")
            if name not in self.full:
                self.notes.append(f"the configuration has no {name}, which `Config` asks for: find out its name here")
        if "num_key_value_heads" in self.full:
            yield self._number("num_key_value_heads", "c.num_attention_heads")
        if "head_dim" in self.full:
            yield self._number("head_dim", "c.hidden_size // c.num_attention_heads")
        self.act = next((name for name in ACT if name in self.full), "")
        if self.act:
            yield Field(self.act, "str", self._default(self.act, "silu"))
        self.eps = next((name for name in EPS if name in (self.defaults or self.full)), "")
        if self.eps:
            yield Field(self.eps, "float", self._default(self.eps, 1e-6))
        for name in self.flags:
            yield Field(name, "bool", self._default(name, False))
        if "sliding_window" in self.full:
            yield Field("sliding_window", "int | None", self._default("sliding_window", None))
        if "layer_types" in self.full:
            yield Field("layer_types", "list[str]")
        if "tie_word_embeddings" in self.full:
            yield Field("tie_word_embeddings", "bool", self._default("tie_word_embeddings", False))
        self.rope = any(name in self.full for name in ROPE)
        if self.rope:
            yield Field("rope_parameters", "dict[str, Any]")

    def _default(self, name: str, otherwise: Any) -> str:
        return python(self.defaults.get(name, otherwise))

    def _number(self, name: str, otherwise: str) -> Field:
        default = self.defaults.get(name)
        computed = f"attrs.Factory(lambda c: {otherwise}, takes_self=True)"
        return Field(name, "int", computed if default is None else python(default))

    def has(self, name: str) -> bool:
        return any(field.name == name for field in self.fields)

    @property
    def rope_defaults(self) -> str:
        """What this architecture's configuration means where it says nothing, if that is not what the core takes."""
        theirs = self.defaults.get("rope_parameters") or {}
        plain = {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}
        differs = {name: theirs[name] for name, value in plain.items() if theirs.get(name, value) != value}
        return "".join(f'"{name}": {python(value)}, ' for name, value in differs.items())


def python(value: Any) -> str:
    """Python's text of a JSON value, with double quotes as formatters want them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{python(k)}: {python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(python, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(python, value)) + ")"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value).replace("e-0", "e-")
