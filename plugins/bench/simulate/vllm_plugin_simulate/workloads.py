"""w1 to w6 of ``vllm-core bench workloads``, with the engine simulated: the same requests, the same arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_core.simulation import LONGEST, Workloads
from vllm_plugin_simulate.clock import Clock
from vllm_plugin_simulate.engine import Engine
from vllm_plugin_simulate.fleet import least_loaded

__all__ = ["run_workloads", "shortest_fitting"]


def run_workloads(engine: Engine, names: Sequence[str], engines: int = 1) -> dict[str, dict[str, Any]]:
    """Value and unit of each. Of several engines each gets its share of a workload's requests."""
    clock = Clock()
    replicas = [engine.replica() for _ in range(engines)]

    def generate(prompts: list[list[int]], lens: list[int], temperature: float) -> int:
        outcomes = []
        for number, (prompt, length) in enumerate(zip(prompts, lens, strict=True)):
            outcomes.append(least_loaded(replicas, number).add(clock.now, prompt, length))
        for replica in replicas:
            while replica.has_work:
                replica.step()
            clock.until(replica.clock.now)
        return sum(len(outcome.times) for outcome in outcomes)

    return Workloads(generate, engine.shapes.vocab, clock=clock).run(names)


def shortest_fitting(names: Sequence[str]) -> int:
    """Tokens that the longest request of these has."""
    return max(LONGEST[name] for name in names)
