"""What a person reads of a run: vLLM's lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vllm_plugin_server.bench.figures import METRICS

__all__ = ["shown"]

WIDTH = 50
LAG = 20.0  # milliseconds of this process that deserve a word


def shown(result: dict[str, Any], metrics: Sequence[str], percentiles: Sequence[float]) -> str:
    """``result`` as ``figures`` gives it, with request_rate and max_concurrency."""
    lines = [_title(" Serving Benchmark Result ", "=")]

    def row(name: str, value: float | None) -> None:
        if value is not None:
            lines.append(f"{name:<40} {value if isinstance(value, int) else f'{value:.2f}'}")

    row("Successful requests:", result["completed"])
    row("Failed requests:", result["failed"])
    row("Maximum request concurrency:", result["max_concurrency"])
    if isinstance(result["request_rate"], float) and not math.isinf(result["request_rate"]):
        row("Request rate configured (RPS):", result["request_rate"])
    row("Benchmark duration (s):", result["duration"])
    row("Total input tokens:", result["total_input_tokens"])
    row("Total generated tokens:", result["total_output_tokens"])
    row("Request throughput (req/s):", result["request_throughput"])
    row("Request goodput (req/s):", result["request_goodput"])
    row("Output token throughput (tok/s):", result["output_throughput"])
    row("Peak output token throughput (tok/s):", result["max_output_tokens_per_s"])
    row("Peak concurrent requests:", result["max_concurrent_requests"])
    row("Total token throughput (tok/s):", result["total_token_throughput"])
    for metric in metrics:
        short, long = METRICS[metric]
        lines.append(_title(long, "-"))
        row(f"Mean {short} (ms):", result[f"mean_{metric}_ms"])
        row(f"Median {short} (ms):", result[f"median_{metric}_ms"])
        for percent in percentiles:
            row(f"P{percent:g} {short} (ms):", result[f"p{percent:g}_{metric}_ms"])
    lines.append("=" * WIDTH)
    lines += [f"failed: {error}" for error in list(dict.fromkeys(e for e in result["errors"] if e))[:10]]
    if result["client_lag_p99_ms"] > LAG:
        lines.append(
            f"This client was late by {result['client_lag_p99_ms']:.0f} ms (p99): latencies are shorter than shown."
        )
    return "\n".join(lines)


def _title(text: str, fill: str) -> str:
    return f"{text:{fill}^{WIDTH}}"
