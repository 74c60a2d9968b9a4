"""What each pipeline stage takes of its device: known before anything is loaded, from the model bound dry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.distributed.groups import dry_groups
from vllm_core.engine.cache.stages import stage_caches
from vllm_core.interfaces.cache import CachePlan
from vllm_core.plugins import Lock, LockedChooser, Selector
from vllm_core.runner.build import ModelBuild, parameter_bytes

__all__ = ["StageSize", "layers_of_stages", "stage_sizes"]


@attrs.frozen
class StageSize:
    name: str  # for messages; "" if there is one stage only
    weights: int  # bytes
    caches: CachePlan


def stage_sizes(
    build: ModelBuild, selector: Selector, caches: CachePlan, whole: Any, beside: Mapping[str, Any]
) -> Iterator[StageSize]:
    """Of each stage, in order.

    selector   has made every choice that layers ask for
    whole      the model with all its layers; ``beside``: models of the draft proposer, which the last stage has
    """
    layout = build.layout
    if layout.pp == 1:
        yield StageSize("", parameter_bytes(whole, *beside.values()), caches)
        return
    choose = LockedChooser(Lock.from_decisions(selector.decisions, {}))
    seconds = tuple(f"{name}." for name in beside)
    for stage in range(layout.pp):
        model, plan = build.construct(choose, torch.device("meta"), groups=dry_groups(layout, stage * layout.tp))
        last = stage == layout.pp - 1
        weights = parameter_bytes(model, *(beside.values() if last else ()))
        names = {cache.name for cache in plan.declared}
        groups = [
            attrs.evolve(g, names=tuple(n for n in g.names if n in names or (last and n.startswith(seconds))))
            for g in stage_caches(caches, plan.declared).groups
        ]
        tensors = max((len(group.names) for group in groups), default=0)
        yield StageSize(
            f"pipeline stage {stage}", weights, attrs.evolve(caches, groups=tuple(groups), num_tensors=tensors)
        )


def layers_of_stages(settings: EngineSettings) -> tuple[int, ...]:
    """``pipeline_layers`` as numbers. Whether they add up is known when there is a model."""
    text, stages = settings.pipeline_layers, settings.pipeline_parallel_size
    if not text:
        return ()
    counts = [part.strip() for part in text.split(",")]
    if not all(count.isdecimal() for count in counts) or len(counts) != stages:
        raise SettingError(
            f"pipeline_layers is {text!r}: it must be {stages} numbers of layers with commas between, one for each"
            " pipeline stage.\n  instead leave it out: layers are shared out by their cost"
        )
    return tuple(map(int, counts))
