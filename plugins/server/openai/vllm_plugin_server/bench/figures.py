"""The figures of a run, under vLLM's names of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm_plugin_server.bench.ask import Outcome
from vllm_plugin_server.bench.load import Run

__all__ = ["METRICS", "SLOS", "figures", "percentile"]

METRICS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
    "client_queue_time": ("Client Queue Time", "Client-side Queueing"),
    "e2el_including_client_queue": ("E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"),
}
SLOS = ("ttft", "tpot", "e2el")


def percentile(values: Sequence[float], percent: float) -> float:
    """Between neighbours on a straight line, as numpy does; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def tpot(outcome: Outcome) -> float:
    """Seconds; 0 of an answer of one token, as vLLM counts it for goodput."""
    return (outcome.latency - outcome.ttft) / (outcome.output_tokens - 1) if outcome.output_tokens > 1 else 0.0


_SECONDS: dict[str, Callable[[list[Outcome]], list[float]]] = {
    "ttft": lambda good: [o.ttft for o in good],
    "tpot": lambda good: [tpot(o) for o in good if o.output_tokens > 1],
    "itl": lambda good: [gap for o in good for gap in o.itl],
    "e2el": lambda good: [o.latency for o in good],
    "client_queue_time": lambda good: [o.queue_time for o in good],
    "e2el_including_client_queue": lambda good: [o.latency + o.queue_time for o in good],
}


def figures(
    run: Run,
    *,
    metrics: Sequence[str],
    percentiles: Sequence[float],
    goodput: Mapping[str, float],
) -> dict[str, Any]:
    """``goodput``: the most milliseconds of a good request, by metric. Failed requests count in no latency."""
    good = [o for o in run.outcomes if o.success]
    tokens_in, tokens_out = sum(o.prompt_len for o in good), sum(o.output_tokens for o in good)
    found: dict[str, Any] = {
        "duration": run.duration,
        "completed": len(good),
        "failed": len(run.outcomes) - len(good),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": len(good) / run.duration,
        "request_goodput": _good_enough(good, goodput) / run.duration if goodput else None,
        "output_throughput": tokens_out / run.duration,
        "total_token_throughput": (tokens_in + tokens_out) / run.duration,
        "max_output_tokens_per_s": _busiest_second(good),
        "max_concurrent_requests": _most_at_once(good),
        "rtfx": 0.0,
    }
    for name in metrics:
        values = [1000 * seconds for seconds in _SECONDS[name](good)]
        found[f"mean_{name}_ms"] = statistics.fmean(values) if values else 0.0
        found[f"median_{name}_ms"] = percentile(values, 50)
        found[f"std_{name}_ms"] = statistics.pstdev(values) if values else 0.0
        for percent in percentiles:
            found[f"p{percent:g}_{name}_ms"] = percentile(values, percent)
    found["client_lag_p99_ms"] = 1000 * percentile(run.lags, 99)
    return found | {
        "input_lens": [o.prompt_len for o in run.outcomes],
        "output_lens": [o.output_tokens if o.success else 0 for o in run.outcomes],
        "ttfts": [o.ttft for o in run.outcomes],
        "itls": [o.itl for o in run.outcomes],
        "latencies": [o.latency for o in run.outcomes],
        "start_times": [o.start_time for o in run.outcomes],
        "queue_times": [o.queue_time for o in run.outcomes],
        "generated_texts": [o.text for o in run.outcomes],
        "errors": [o.error for o in run.outcomes],
    }


def _good_enough(good: Sequence[Outcome], slos: Mapping[str, float]) -> int:
    def meets(outcome: Outcome) -> bool:
        took = {"ttft": outcome.ttft, "tpot": tpot(outcome), "e2el": outcome.latency}
        return all(1000 * took[name] <= most for name, most in slos.items())

    return sum(map(meets, good))


def _busiest_second(good: Sequence[Outcome]) -> float:
    """Most pieces of text in one second of the run."""
    if not good:
        return 0.0
    begin = min(o.start_time for o in good)
    seconds: dict[int, int] = {}
    for outcome in good:
        at = outcome.start_time + outcome.ttft - begin
        for gap in (0.0, *outcome.itl):
            at += gap
            seconds[int(at)] = seconds.get(int(at), 0) + 1
    return float(max(seconds.values()))


def _most_at_once(good: Sequence[Outcome]) -> int:
    changes = sorted(change for o in good for change in ((o.start_time, 1), (o.start_time + o.latency, -1)))
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
