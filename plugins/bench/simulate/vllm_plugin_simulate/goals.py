"""What callers are promised: the most milliseconds of a figure, at a percentile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.commands import UsageError
from vllm_plugin_simulate.figures import METRICS, PERCENTILES

__all__ = ["Goals", "read_goals"]

KEPT_UP = 0.9
"""Share of the requests a second that come which must get done; below it the queue grows."""


@attrs.frozen
class Goals:
    """``most``: milliseconds by figure of METRICS, met at percentile ``percent``."""

    most: Mapping[str, float]
    percent: int

    def missed(self, found: Mapping[str, Any], rate: float) -> str:
        """The first goal that a run at ``rate`` requests a second missed; "" if it met all."""
        for name, most in self.most.items():
            if (value := found[f"p{self.percent}_{name}_ms"]) > most:
                return f"p{self.percent} {name} {value:.0f} ms"
        # What is left to do when the last request has come takes as long however many came before.
        seconds = found["duration"] - found["mean_e2el_ms"] / 1e3
        if seconds > 0 and found["completed"] / seconds < KEPT_UP * rate:
            return f"{found['completed'] / seconds:.3g} requests/s of {rate:.3g}"
        return ""


def read_goals(words: Sequence[str], percent: int) -> Goals:
    """``ttft:500 tpot:50``: milliseconds."""
    if percent not in PERCENTILES:
        raise UsageError(f"--goal-percentile must be one of {', '.join(map(str, PERCENTILES))}, not {percent}")
    most = {}
    for word in words:
        name, _, value = word.partition(":")
        try:
            most[name] = float(value)
        except ValueError:
            most[name] = 0.0
        if name not in METRICS or not most[name] > 0:
            raise UsageError(
                f"--goal {word}: it must be a figure and milliseconds, as in ttft:500; figures are {', '.join(METRICS)}"
            )
    return Goals(most, percent)
