"""The declaration of a setting."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["setting"]


def setting(
    default: Any,
    *,
    help: str,
    unit: str = "",
    trade: str = "",
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    group: str = "",
    function: bool = False,
) -> Any:
    """A field of an attrs class of settings. Its annotation is the type users' values are converted to.

    help    what it is, one sentence
    unit    of a number: "tokens per step", "bytes"
    trade   what a higher and a lower value cost
    choices, low, high   what is allowed; anything else is refused, naming the setting
    function   whether Python may give a function instead of a value
    group   heading it stands under in --help and docs/settings.md
    """

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        name = attribute.name
        if value is None or (function and callable(value)):
            return
        if choices and value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
        if low is not None and value < low:
            raise ValueError(f"{name} must be at least {low:,}{' ' + unit if unit else ''}, not {value!r}")
        if high is not None and value > high:
            raise ValueError(f"{name} must be at most {high:,}{' ' + unit if unit else ''}, not {value!r}")

    meta = {
        "help": help, "unit": unit, "trade": trade, "choices": choices, "low": low, "high": high, "group": group,
        "function": function,
    }  # fmt: skip
    if isinstance(default, dict | list | set):
        return attrs.field(factory=lambda: type(default)(default), validator=check, metadata={"setting": meta})
    return attrs.field(default=default, validator=check, metadata={"setting": meta})
