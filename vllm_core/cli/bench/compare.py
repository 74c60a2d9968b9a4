"""What a setting costs: the same workload with it off, then on; or with one executor, then another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings
from vllm_core.plugins.errors import did_you_mean

__all__ = ["compare"]

EXECUTOR = "distributed_executor_backend"


def compare(
    given: str,
    wanted: EngineSettings,
    measure: Callable[[EngineSettings, str], dict[str, Any]],
    figures_of: Callable[[dict[str, Any]], dict[str, float | None]],
) -> dict[str, Any]:
    """Results by ``off`` and ``on``, and their figures beside each other.

    given    names a setting that is on or off, or says distributed-executor-backend=A,B: A stands for off, B for on
    measure  is given the settings with it off or on, and the flag that says so
    """
    name, titles, sides = _sides(given, wanted)
    found = {}
    for side, title, (value, flag) in zip(("off", "on"), titles, sides, strict=True):
        print(f"{name} {title}:", flush=True)
        change: dict[str, Any] = {name: value}
        found[side] = measure(attrs.evolve(wanted, **change), flag)
    off, on = figures_of(found["off"]), figures_of(found["on"])
    figures = {
        title: {"off": a, "on": b, "ratio": b / a if a and b else None}
        for title, a, b in ((title, off[title], on[title]) for title in off)
    }
    _print(name, titles, figures)
    return {"compare": name, "sides": list(titles), **found, "figures": figures}


def _sides(given: str, wanted: EngineSettings) -> tuple[str, tuple[str, str], list[tuple[Any, str]]]:
    """The setting, what its sides are called, and the value and the flag of each."""
    name, _, values = given.partition("=")
    name = name.replace("-", "_")
    if name == EXECUTOR:
        one, _, two = values.partition(",")
        if not (one and two) or "," in two:
            instead = f"{_flag(name)[2:]}=in-process,mp"
            raise UsageError(f"--compare {given}: two executors are compared.\n  instead {instead}")
        return name, (one, two), [(value, f"{_flag(name)}={value}") for value in (one, two)]
    known = [field.name for field in attrs.fields(EngineSettings) if isinstance(getattr(wanted, field.name), bool)]
    if name not in known or values:
        hint = did_you_mean(name, known) or "."
        raise UsageError(f"--compare {given}: that is no setting that is on or off{hint}\n  known   {', '.join(known)}")
    return name, ("off", "on"), [(False, _flag(f"no_{name}")), (True, _flag(name))]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _print(name: str, titles: tuple[str, str], figures: dict[str, dict[str, float | None]]) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"

    ratio = max(12, 5 + len("".join(titles)))
    width = max(map(len, (name, *figures))) + 2
    print(f"\n{name:<{width}}{titles[0]:>12}{titles[1]:>12}{' / '.join(titles[::-1]):>{ratio}}")
    for title, row in figures.items():
        sides = "".join(f"{shown(row[key]):>12}" for key in ("off", "on"))
        print(f"{title:<{width}}{sides}{shown(row['ratio']):>{ratio}}", flush=True)
