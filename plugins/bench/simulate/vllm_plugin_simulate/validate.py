"""Predictions beside what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import attrs

from vllm_core.simulation import ALL, TITLES
from vllm_plugin_simulate.engine import Engine
from vllm_plugin_simulate.hardware import read_gpu, read_host, read_link
from vllm_plugin_simulate.memory import Limits
from vllm_plugin_simulate.shapes import read_shapes
from vllm_plugin_simulate.split import Split
from vllm_plugin_simulate.workloads import run_workloads

__all__ = ["Compared", "shown", "validate"]


@attrs.frozen(kw_only=True)
class Compared:
    model: str
    split: str  # "tp x pp x dp"
    workload: str
    unit: str
    measured: float
    predicted: float
    use: str  # "checked", or "seen" where the model has learned something of the run
    note: str

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1


def validate(link: str = "nvlink4", network: str = "ib400") -> list[Compared]:
    """Of every point of measured.toml."""
    text = files(__package__).joinpath("measured.toml").read_text("utf-8")
    return [one for point in tomllib.loads(text)["point"] for one in compare(point, link, network)]


def compare(point: dict[str, Any], link: str = "nvlink4", network: str = "ib400") -> list[Compared]:
    """One table ``[[point]]``: a model on a split, with the figures of some workloads."""
    tp, pp, dp = (point.get(name, 1) for name in ("tp", "pp", "dp"))
    limits = Limits(max_model_len=point["max_model_len"], gpu_memory_utilization=point["gpu_memory_utilization"])
    split = Split(tp=tp, pp=pp, link=read_link(link, "--link"), network=read_link(network, "--network"))
    engine = Engine.of(read_shapes(point["model"]), read_gpu(point["hardware"]), read_host(), split, limits)
    names = [name for name in ALL if name in point]
    found = run_workloads(engine, names, dp)
    return [
        Compared(
            model=point["model"],
            split=f"{tp} x {pp} x {dp}",
            workload=name,
            unit=found[name]["unit"],
            measured=point[name],
            predicted=found[name]["value"],
            use=point["use"],
            note=point.get("note", {}).get(name, ""),
        )
        for name in names
    ]


def shown(rows: Sequence[Compared]) -> str:
    """A table in Markdown, as it stands in docs/scaling.md."""
    lines = ["| model | workload | measured | predicted | error | |", "|---|---|---|---|---|---|"]
    for one in rows:
        digits = ".4f" if one.unit == "s" else ",.0f"
        lines.append(
            f"| {one.model} | {one.workload} {TITLES[one.workload]}, {one.unit} | {one.measured:{digits}} "
            f"| {one.predicted:{digits}} | {100 * one.error:+.1f} % | {one.use}{': ' if one.note else ''}{one.note} |"
        )
    for use in dict.fromkeys(one.use for one in rows):
        worst = max(abs(one.error) for one in rows if one.use == use)
        lines.append(f"\nlargest error of those that were {use}: {100 * worst:.1f} %")
    return "\n".join(lines)
