"""Starts of an engine in fresh processes, with kernel caches cold and warm, and what is said about them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.bench.caches import drop, fresh_caches
from vllm_core.cli.bench.figures import percentiles, spread, table

__all__ = ["PHASES", "Counts", "Starts", "beside", "cold_and_warm", "keys", "show"]

PHASES = ("cold", "warm")
Starts = dict[str, list[dict[str, Any]]]  # by phase
Begin = Callable[[dict[str, str]], dict[str, Any]]  # variables of the environment -> what the start found


@attrs.frozen
class Counts:
    cold: int
    warm_up: int
    warm: int
    drop: str  # before which starts files are dropped from the page cache: "cold", "always", "never"

    @property
    def all(self) -> int:
        return self.cold + self.warm_up + self.warm


def cold_and_warm(begin: Begin, files: Sequence[Path], counts: Counts, tick: Callable[[], Any]) -> Starts:
    """Every cold start has caches of its own. Warm ones have those of the last cold one, or the user's without any."""
    found: Starts = {"cold": [], "warm": []}
    caches: dict[str, str] = {}
    with ExitStack() as folders:
        for i in range(counts.all):
            cold = i < counts.cold
            if cold:
                caches = fresh_caches(folders.enter_context(tempfile.TemporaryDirectory(prefix="caches-")))
            dropped = counts.drop != "never" and (cold or counts.drop == "always") and drop(files)
            start = {**begin(caches), "files_dropped": dropped}
            tick()
            if cold or i >= counts.cold + counts.warm_up:
                found["cold" if cold else "warm"].append(start)
    return found


def keys(starts: Starts) -> dict[str, Any]:
    """vLLM's keys, where start-up is the making of the LLM; ours from the start of the process."""
    result: dict[str, Any] = {}
    for phase, found in starts.items():
        if not found:
            continue
        for name in ("startup", "ready", "first_token"):
            values = [one[f"{name}_seconds"] for one in found]
            result[f"avg_{phase}_{name}_time"] = sum(values) / len(values)
            result[f"{phase}_{name}_times"] = values
            result[f"{phase}_{name}_percentiles"] = percentiles(values)
            result[f"{phase}_{name}"] = spread(values)
        nothing = [0.0] * len(found)  # no stage only compiles: kernels are compiled while the LLM is made
        result[f"avg_{phase}_compilation_time"] = 0.0
        result[f"{phase}_compilation_times"] = nothing
        result[f"{phase}_compilation_percentiles"] = percentiles(nothing)
        stages = {stage: spread([one["start_seconds"].get(stage, 0.0) for one in found]) for stage in _stages(found)}
        result[f"{phase}_stages"] = {stage: values["median"] for stage, values in stages.items()}
        rest = [one["startup_seconds"] - sum(one["start_seconds"].values()) for one in found]
        result[f"{phase}_stages"]["imports"] = spread(rest)["median"]  # what no stage is: torch above all
        result[f"{phase}_process_times"] = [one["process_seconds"] for one in found]
        result[f"{phase}_files_dropped"] = all(one["files_dropped"] for one in found)
    return result


def _stages(found: Sequence[dict[str, Any]]) -> list[str]:
    return list(found[0]["start_seconds"])


def beside(starts: Starts, peers: Starts) -> dict[str, dict[str, Any]]:
    """Medians of both, and their ratios."""
    figures = {}
    for phase in PHASES:
        if not (starts[phase] and peers[phase]):
            continue
        for title, own, peer in (
            ("start to ready", "ready_seconds", "ready_s"), ("first token", "first_token_seconds", "first_token_s"),
        ):  # fmt: skip
            a, b = (spread([one[key] for one in found])["median"]
                    for found, key in ((starts[phase], own), (peers[phase], peer)))  # fmt: skip
            figures[f"{phase} caches: {title}, s"] = {"own": a, "peer": b, "ratio": a / b if b else None}
    return figures


def show(name: str, result: dict[str, Any], starts: Starts) -> None:
    """What was found of one way to start."""
    for phase, found in starts.items():
        if not found:
            continue
        first, ready = result[f"{phase}_first_token"], result[f"{phase}_ready"]
        print(
            f"{name}{phase.capitalize()} start: {ready['median']:.2f} s to ready, {first['median']:.2f} s to the first"
            f" token (median of {len(found)}; {_files(result[f'{phase}_files_dropped'])})"
        )
        made = result[f"{phase}_startup"]
        rows = {
            "first token": f"p50 {first['p50']:.2f}, p90 {first['p90']:.2f}, p99 {first['p99']:.2f} s",
            "ready": f"p50 {ready['p50']:.2f}, p90 {ready['p90']:.2f}, p99 {ready['p99']:.2f} s",
            "making LLM": f"p50 {made['p50']:.2f}, p90 {made['p90']:.2f}, p99 {made['p99']:.2f} s",
            **{f"  {stage}": f"{seconds:.3f} s" for stage, seconds in result[f"{phase}_stages"].items()},
        }
        print(table(rows), flush=True)


def _files(dropped: bool) -> str:
    return "files dropped from the page cache" if dropped else "files may be in the page cache"
