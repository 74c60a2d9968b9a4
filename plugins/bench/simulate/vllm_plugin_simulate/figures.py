"""The figures of a run, under the names of vLLM's ``bench serve``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vllm_plugin_simulate.fleet import Run

__all__ = ["METRICS", "figures", "shown"]

METRICS = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}
PERCENTILES = (50, 90, 95, 99)
WIDTH = 50


def figures(run: Run, gpus: int) -> dict[str, Any]:
    """Seconds and rates of all engines, latencies in milliseconds. ``gpus``: of all engines."""
    outcomes = run.outcomes
    duration = max(one.times[-1] for one in outcomes) - min(one.arrival for one in outcomes)
    tokens_in = run.scale * sum(one.input_tokens for one in outcomes)
    tokens_out = run.scale * sum(one.output_tokens for one in outcomes)
    requests = run.scale * len(outcomes)
    found: dict[str, Any] = {
        "duration": duration,
        "completed": round(requests),
        "total_input_tokens": round(tokens_in),
        "total_output_tokens": round(tokens_out),
        "request_throughput": requests / duration,
        "output_throughput": tokens_out / duration,
        "total_token_throughput": (tokens_in + tokens_out) / duration,
        "gpus": gpus,
        "output_throughput_per_gpu": tokens_out / duration / gpus,
        "engines": run.engines,
        "simulated_engines": run.simulated,
        "simulated_requests": len(outcomes),
        "busiest_stage": run.busy,
        "preemptions": round(run.scale * run.preemptions),
    }
    for name, values in _milliseconds(run).items():
        found |= _spread(name, values)
    return found


def shown(found: Mapping[str, Any]) -> str:
    """What a person reads: vLLM's lines."""
    lines = [_title(" Simulated Serving Result ", "=")]

    def row(name: str, value: float) -> None:
        lines.append(f"{name:<40} {value if isinstance(value, int) else f'{value:.2f}'}")

    row("Successful requests:", found["completed"])
    row("Benchmark duration (s):", found["duration"])
    row("Total input tokens:", found["total_input_tokens"])
    row("Total generated tokens:", found["total_output_tokens"])
    row("Request throughput (req/s):", found["request_throughput"])
    row("Output token throughput (tok/s):", found["output_throughput"])
    row("Total token throughput (tok/s):", found["total_token_throughput"])
    row("GPUs:", found["gpus"])
    row("Output tokens/s per GPU:", found["output_throughput_per_gpu"])
    row("Busiest stage at work (%):", 100 * found["busiest_stage"])
    row("Preemptions:", found["preemptions"])
    for name, title in METRICS.items():
        lines.append(_title(title, "-"))
        row(f"Mean {name.upper()} (ms):", found[f"mean_{name}_ms"])
        row(f"Median {name.upper()} (ms):", found[f"median_{name}_ms"])
        row(f"P99 {name.upper()} (ms):", found[f"p99_{name}_ms"])
    lines.append("=" * WIDTH)
    if found["simulated_engines"] < found["engines"]:
        lines.append(
            f"{found['simulated_engines']} of {found['engines']:,} engines were simulated, with their share of the "
            f"requests ({found['simulated_requests']:,}); throughput is scaled up."
        )
    return "\n".join(lines)


def _milliseconds(run: Run) -> dict[str, np.ndarray]:
    several = [one for one in run.outcomes if one.output_tokens > 1]
    gaps = [np.diff(one.times) for one in several]
    seconds = {
        "ttft": [one.times[0] - one.arrival for one in run.outcomes],
        "tpot": [(one.times[-1] - one.times[0]) / (one.output_tokens - 1) for one in several],
        "itl": np.concatenate(gaps) if gaps else [],
        "e2el": [one.times[-1] - one.arrival for one in run.outcomes],
    }
    return {name: 1e3 * np.asarray(values, dtype=float) for name, values in seconds.items()}


def _spread(name: str, values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """0 where there is no value, as vLLM has it."""
    if not len(values):
        values = np.zeros(1)
    found = {f"mean_{name}_ms": float(np.mean(values)), f"median_{name}_ms": float(np.median(values))}
    found[f"std_{name}_ms"] = float(np.std(values))
    return found | {f"p{p}_{name}_ms": float(np.percentile(values, p)) for p in PERCENTILES}


def _title(text: str, fill: str) -> str:
    return f"{text:{fill}^{WIDTH}}"
