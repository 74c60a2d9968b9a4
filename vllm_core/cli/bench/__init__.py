"""``vllm-core bench throughput | latency | startup | workloads | soak | trace | step | attention``."""

from __future__ import annotations

from vllm_core.plugin import Command

__all__ = ["Bench"]

_HERE = "vllm_core.cli.bench"


class Bench:
    """A group of commands, one for each measurement, imported when it is asked for."""

    about = "Measure speed. Results name the plugins, the settings and the hardware they were measured with."

    commands = (
        Command("throughput", f"{_HERE}.throughput:Throughput", "how much a batch of requests gets done; --vs a peer"),
        Command("latency", f"{_HERE}.latency:Latency", "how long one batch takes, and how fast one stream is"),
        Command("startup", f"{_HERE}.startup:Startup", "how long a fresh process needs to its first token"),
        Command("workloads", f"{_HERE}.workloads:WorkloadsCommand", "six workloads w1 to w6; --vs a peer"),
        Command("soak", f"{_HERE}.soak:Soak", "a mixed load for minutes: failures, losses, growth of memory"),
        Command("trace", f"{_HERE}.trace:Trace", "what a CUDA device does while a batch decodes, and its gaps"),
        Command("step", f"{_HERE}.step:Step", "what a step costs the host, without a model"),
        Command("attention", f"{_HERE}.attention:Attention", "which attention backend is fastest for a model's layers"),
    )
