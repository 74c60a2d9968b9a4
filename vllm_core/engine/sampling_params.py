"""How the tokens of one request are chosen, and when it ends. Names and defaults are vLLM's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.engine.errors import nearest
from vllm_core.interfaces.steps import RowSampling

__all__ = ["SamplingParams", "unmet_defaults"]

HOTTEST = 1e30  # temperature: the device has float32, and every token is as likely long before
MAX_STOPS = 128  # stop strings or stop tokens a request
MAX_STOP_LENGTH = 1024  # characters

# Fields of vLLM's SamplingParams that do not exist here yet, with the value that changes nothing.
NOT_YET: dict[str, Any] = {
    "best_of": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "min_tokens": 0,
    "bad_words": None,
    "logprobs": None,
    "prompt_logprobs": None,
    "logit_bias": None,
    "allowed_token_ids": None,
    "logits_processors": None,
    "truncate_prompt_tokens": None,
    "spaces_between_special_tokens": True,
    "structured_outputs": None,
    "guided_decoding": None,
    "flat_logprobs": False,
    "extra_args": None,
    "skip_reading_prefix_cache": None,
}

# Keys of generation_config.json that say how to sample, and what they are called here.
GENERATION_KEYS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}
COUNTS = ("top_k", "max_tokens")
GENERATION_KEYS_NOT_YET = {"repetition_penalty": 1.0, "min_p": 0.0}


def unmet_defaults(generation_config: Mapping[str, Any]) -> list[str]:
    """What the model's authors recommend and nobody here can do yet, a line each."""
    return [
        f"generation_config.json asks for {key}={generation_config[key]}, which is not supported yet"
        for key, neutral in GENERATION_KEYS_NOT_YET.items()
        if generation_config.get(key, neutral) not in (neutral, None)
    ]


def _number(low: float, high: float, *, open_low: bool = False) -> Any:
    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{attribute.name} must be a number, not {value!r}")
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            bounds = f"{'above' if open_low else 'at least'} {low:g}" + (
                "" if high == math.inf else f", at most {high:g}"
            )
            raise ValueError(f"{attribute.name} must be {bounds}, not {value!r}")

    return check


def _integer(low: int, high: int, *, optional: bool = False) -> Any:
    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be a whole number from {low} to {high}{' or None' * optional}, not {value!r}"
            )

    return check


def _boolean(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False, not {value!r}")


def _only_one(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if isinstance(value, bool) or value != 1:
        raise ValueError(f"n={value!r} is not supported yet, only n=1: pass the prompt several times, with other seeds")


def _strings(value: Any) -> Any:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else value


def _ids(value: Any) -> Any:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _stops(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in value):
        raise ValueError(
            f"stop must be a string or a list of strings of 1 to {MAX_STOP_LENGTH} characters, not {value!r:.200}"
        )
    if len(value) > MAX_STOPS:
        raise ValueError(f"stop may hold at most {MAX_STOPS} strings, not {len(value)}")


def _stop_ids(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
    if not isinstance(value, tuple) or not all(type(i) is int and i >= 0 for i in value):
        raise ValueError(f"stop_token_ids must be a list of token ids, not {value!r}")
    if len(value) > MAX_STOPS:
        raise ValueError(f"stop_token_ids may hold at most {MAX_STOPS} ids, not {len(value)}")


@attrs.frozen(init=False)
class SamplingParams:
    """One request's sampling and stopping. All by keyword; values out of range are refused by name."""

    n: int = attrs.field(default=1, validator=_only_one)  # outputs a prompt
    temperature: float = attrs.field(default=1.0, validator=_number(0, math.inf))  # 0: always the likeliest token
    top_p: float = attrs.field(default=1.0, validator=_number(0, 1, open_low=True))  # 1: all
    top_k: int = attrs.field(default=0, validator=_integer(-1, 2**31 - 1))  # 0 or -1: all
    seed: int | None = attrs.field(default=None, validator=_integer(-1, 2**63 - 1, optional=True))  # -1: none, as None
    stop: tuple[str, ...] = attrs.field(default=(), converter=_strings, validator=_stops)
    stop_token_ids: tuple[int, ...] = attrs.field(default=(), converter=_ids, validator=_stop_ids)
    include_stop_str_in_output: bool = attrs.field(default=False, validator=_boolean)
    max_tokens: int | None = attrs.field(
        default=16, validator=_integer(1, 2**31 - 1, optional=True)
    )  # None: all that fit
    ignore_eos: bool = attrs.field(default=False, validator=_boolean)
    detokenize: bool = attrs.field(default=True, validator=_boolean)  # False: no text
    skip_special_tokens: bool = attrs.field(default=True, validator=_boolean)

    def __init__(self, **fields: Any) -> None:
        known = [a.name for a in attrs.fields(type(self))]
        for name in [n for n in fields if n not in known]:
            if name not in NOT_YET:
                raise TypeError(f"SamplingParams has no field {name!r}{nearest(name, [*known, *NOT_YET])}")
            # What changes nothing is granted, so that code written for vLLM runs.
            if (value := fields.pop(name)) not in (NOT_YET[name], None, [], {}):
                raise ValueError(f"SamplingParams: {name}={value!r} is not supported yet; leave it out")
        self.__attrs_init__(**fields)
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are searched in the text, so they need detokenize=True")

    @classmethod
    def from_defaults(cls, generation_config: Mapping[str, Any], **fields: Any) -> SamplingParams:
        """What the model's authors recommend in generation_config.json, with ``fields`` on top.

        ``ValueError`` if what they wrote is no sampling parameter.
        """
        given = {ours: generation_config.get(theirs) for theirs, ours in GENERATION_KEYS.items()}
        # JSON written by other tools has 50.0 for 50.
        given = {k: int(v) if isinstance(v, float) and k in COUNTS and v.is_integer() else v for k, v in given.items()}
        try:
            recommended = cls(**{k: v for k, v in given.items() if v is not None})
        except ValueError as error:
            raise ValueError(
                f"generation_config.json: {error}\n"
                '  instead generation_config="none" (--generation-config none) does without the file'
            ) from error
        return attrs.evolve(recommended, **fields)

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {a.name: getattr(self, a.name) for a in attrs.fields(type(self)) if getattr(self, a.name) != a.default}

    def for_row(self, fallback_seed: int) -> RowSampling:
        """What the device needs. ``fallback_seed`` serves requests that bring none."""
        seed = fallback_seed if self.seed is None or self.seed == -1 else self.seed
        return RowSampling(
            temperature=min(float(self.temperature), HOTTEST),
            top_k=max(self.top_k, 0),
            top_p=float(self.top_p),
            seed=seed,
        )
