"""What a setting costs: the same workload with it off, then on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings
from vllm_core.plugins.errors import did_you_mean

__all__ = ["compare"]


def compare(
    given: str,
    wanted: EngineSettings,
    measure: Callable[[EngineSettings, str], dict[str, Any]],
    figures_of: Callable[[dict[str, Any]], dict[str, float | None]],
) -> dict[str, Any]:
    """Results by ``off`` and ``on``, and their figures beside each other.

    given    names a setting that is on or off
    measure  is given the settings with it off or on, and the flag that says so
    """
    name = given.replace("-", "_")
    known = [field.name for field in attrs.fields(EngineSettings) if isinstance(getattr(wanted, field.name), bool)]
    if name not in known:
        hint = did_you_mean(name, known) or "."
        raise UsageError(f"--compare {given}: that is no setting that is on or off{hint}\n  known   {', '.join(known)}")
    found = {}
    for side, is_on in (("off", False), ("on", True)):
        print(f"{name} {side}:", flush=True)
        change: dict[str, Any] = {name: is_on}
        flag = f"--{'' if is_on else 'no-'}{name.replace('_', '-')}"
        found[side] = measure(attrs.evolve(wanted, **change), flag)
    off, on = figures_of(found["off"]), figures_of(found["on"])
    figures = {
        title: {"off": a, "on": b, "ratio": b / a if a and b else None}
        for title, a, b in ((title, off[title], on[title]) for title in off)
    }
    _print(name, figures)
    return {"compare": name, **found, "figures": figures}


def _print(name: str, figures: dict[str, dict[str, float | None]]) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"

    width = max(map(len, (name, *figures))) + 2
    print(f"\n{name:<{width}}{'off':>12}{'on':>12}{'on / off':>12}")
    for title, row in figures.items():
        print(f"{title:<{width}}" + "".join(f"{shown(row[key]):>12}" for key in ("off", "on", "ratio")), flush=True)
