"""Converters and validators for what users write into `SamplingParams`. Every message names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

MAX_SAMPLES = 128  # outputs a prompt
MAX_STOPS = 128  # stop strings or stop tokens a request
MAX_STOP_LENGTH = 1024  # characters
MAX_BAD_WORDS = 256
MAX_BIASES = 4096  # tokens
LARGEST_BIAS = 100.0
MAX_EXTRA_BYTES = 1 << 16  # as msgpack

Attribute = attrs.Attribute


def number(low: float, high: float, *, open_low: bool = False) -> Any:
    def check(instance: Any, attribute: Attribute, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{attribute.name} must be a number, not {value!r:.80}")
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            bounds = f"{'above' if open_low else 'at least'} {low:g}" + (
                "" if high == math.inf else f", at most {high:g}"
            )
            raise ValueError(f"{attribute.name} must be {bounds}, not {value!r}")

    return check


def integer(low: int, high: int, *, optional: bool = False) -> Any:
    def check(instance: Any, attribute: Attribute, value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be a whole number from {low} to {high}{' or None' * optional},"
                f" not {value!r:.80}"
            )

    return check


def boolean(instance: Any, attribute: Attribute, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be True or False, not {value!r:.80}")


def optional_boolean(instance: Any, attribute: Attribute, value: Any) -> None:
    if value is not None:
        boolean(instance, attribute, value)


def truncation(instance: Any, attribute: Attribute, value: Any) -> None:
    integer(-1, 2**31 - 1, optional=True)(instance, attribute, value)
    if value == 0:
        raise ValueError(f"{attribute.name} must be at least 1, or -1 for what fits, not 0")


def strings(value: Any) -> Any:
    """None, one string or several, as a tuple."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else value


def ids(value: Any) -> Any:
    """None or several ids, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def optional_ids(value: Any) -> Any:
    return None if value is None else ids(value)


def count(value: Any) -> Any:
    """vLLM takes True for one token."""
    return 1 if value is True else value


def biases(value: Any) -> Any:
    """Token ids may be written as strings, as JSON must; numbers beyond +-100 are brought there, as vLLM does."""
    if value is None or not isinstance(value, Mapping):
        return value
    found = {}
    for token, bias in value.items():
        try:
            token_id = token if type(token) is int else int(token) if isinstance(token, str) else None
        except ValueError:
            token_id = None
        if token_id is None or token_id < 0:
            raise ValueError(f"logit_bias has {token!r:.80} for a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or math.isnan(bias):
            raise ValueError(f"logit_bias of token {token_id} must be a number, not {bias!r:.80}")
        found[token_id] = float(min(max(bias, -LARGEST_BIAS), LARGEST_BIAS))
    return found or None


def bias_map(instance: Any, attribute: Attribute, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise ValueError(f"{attribute.name} must be a dict of token ids and numbers, not {value!r:.80}")
    if len(value) > MAX_BIASES:
        raise ValueError(f"{attribute.name} may hold at most {MAX_BIASES} tokens, not {len(value)}")


def texts(most: int) -> Any:
    def check(instance: Any, attribute: Attribute, value: Any) -> None:
        if not isinstance(value, tuple) or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP_LENGTH for s in value):
            raise ValueError(
                f"{attribute.name} must be a string or a list of strings of 1 to {MAX_STOP_LENGTH} characters,"
                f" not {value!r:.200}"
            )
        if len(value) > most:
            raise ValueError(f"{attribute.name} may hold at most {most} strings, not {len(value)}")

    return check


def token_ids(most: int | None) -> Any:
    def check(instance: Any, attribute: Attribute, value: Any) -> None:
        if not isinstance(value, tuple) or not all(type(i) is int and i >= 0 for i in value):
            raise ValueError(f"{attribute.name} must be a list of token ids, not {value!r:.200}")
        if most is not None and len(value) > most:
            raise ValueError(f"{attribute.name} may hold at most {most} ids, not {len(value)}")

    return check


def some_token_ids(instance: Any, attribute: Attribute, value: Any) -> None:
    if value is None:
        return
    token_ids(None)(instance, attribute, value)
    if not value:
        raise ValueError(f"{attribute.name} is empty: no token could be drawn; leave it out to allow all")


def plain_data(instance: Any, attribute: Attribute, value: Any) -> None:
    """What can travel to another process: text, numbers, lists and dicts of them."""
    if value is None:
        return
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{attribute.name} must be a dict with names for keys, not {value!r:.80}")
    try:
        size = len(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{attribute.name} may hold text, numbers, lists and dicts of them only: {error or type(error).__name__}"
        ) from None
    if size > MAX_EXTRA_BYTES:
        raise ValueError(f"{attribute.name} may take at most {MAX_EXTRA_BYTES:,} bytes as msgpack, not {size:,}")
