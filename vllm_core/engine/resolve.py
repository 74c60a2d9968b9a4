"""From settings to choices: ask the plugins, and write down what they say. `engine.build` starts from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch

from vllm_core.config.engine import EngineSettings
from vllm_core.distributed.layout import Layout
from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.engine.choose_collectives import choose_collectives
from vllm_core.engine.choose_grammars import GrammarChoices
from vllm_core.engine.find import find
from vllm_core.engine.fit import Fitted, fit
from vllm_core.engine.fleet.plan import alone
from vllm_core.engine.grammars import Grammars
from vllm_core.engine.memory import MemoryPlan
from vllm_core.engine.progress import loading_line
from vllm_core.engine.recipe import Recipe
from vllm_core.engine.timing import timed
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.grammar import KINDS
from vllm_core.interfaces.platform import Platform
from vllm_core.interfaces.queries import ExecutorQuery, MetricsQuery, SchedulerQuery
from vllm_core.interfaces.weights import Checkpoint
from vllm_core.plugins import Decision, Lock, LockedChooser, Selector
from vllm_core.runner.build import Build
from vllm_core.runner.chosen import Chosen

__all__ = ["Part", "Resolved", "resolve"]


@attrs.frozen(kw_only=True)
class Resolved:
    """All choices made and recorded; no weight read, no page made."""

    settings: EngineSettings  # hf_overrides as fields, where a function was given
    selector: Selector
    lock: Lock
    checkpoint: Checkpoint
    build: Build
    executor_target: Any
    memory: MemoryPlan
    max_step_tokens: int
    policy: Chosen  # of the order of requests
    sinks: Sequence[Decision]  # of the engine's figures
    eos_token_ids: tuple[int, ...]
    generation_config: Mapping[str, Any]
    warnings: Sequence[str]  # about plugins: quarantined ones, names in the policy that nobody has
    timings: dict[str, float]


@attrs.frozen
class Part:
    """Which of the processes of a model resolves, when they are several."""

    local_rank: int  # on this host
    num_pages: int  # that the engine has planned


def resolve(settings: EngineSettings, part: Part | None = None) -> Resolved:
    """Make every choice of an engine. Raises the error that names what is missing and what would work.

    part   None: the whole, for which no device is touched if its ranks have processes of their own
    """
    timings: dict[str, float] = {}
    found = find(settings, timings)
    settings, selector, device = found.settings, found.selector, found.device
    backend = settings.distributed_executor_backend
    layout = Layout(settings.tensor_parallel_size, settings.pipeline_parallel_size)
    with timed(timings, "model"):
        fitted = fit(found, None if part is None else part.num_pages)
        executor = selector.choose(
            "executor",
            ExecutorQuery(name=backend or "", world_size=layout.world, nodes=1, device=device),
            backend,
            asked_by="--distributed-executor-backend",
        )
        collectives = choose_collectives(selector, layout, fitted.model_build.dtype, device)
        policy = selector.choose(
            "scheduler_policy",
            SchedulerQuery(policy=settings.scheduling_policy),
            # The default is nobody's wish: explain should not say that it was asked for.
            None if settings.scheduling_policy == EngineSettings().scheduling_policy else settings.scheduling_policy,
            asked_by="--scheduling-policy",
        )
        policy.load()  # what cannot be imported is known before a weight is read
        sinks = selector.choose_all("metrics_sink", _metrics_query(settings, fitted))
        lock = Lock.from_decisions(selector.decisions, attrs.asdict(alone(settings)))
    build = Build(
        model=fitted.model_build,
        checkpoint=found.checkpoint,
        dummy_seed=settings.seed if settings.load_format == "dummy" else None,
        choose=LockedChooser(lock),
        torch_device=_torch_device(found.platform, device, part, executor),
        num_pages=fitted.memory.num_pages,
        max_rows=settings.max_rows,
        plan_caches=plan_caches,
        proposer=fitted.proposer,
        second=fitted.second,
        sampler=fitted.sampler,
        processors=fitted.processors,
        grammars=Grammars(_grammars(fitted.grammars, executor)),
        progress=loading_line(),
        asked=fitted.asked,
        beside=fitted.memory.budget.beside.by_purpose(),
        graphs=not settings.enforce_eager,
        caches=fitted.caches,
        collectives=collectives,
        recipe=Recipe(attrs.asdict(settings), lock.digest),
    )
    return Resolved(
        settings=settings,
        warnings=found.warnings,
        eos_token_ids=found.eos_token_ids,
        generation_config=found.generation_config,
        selector=selector,
        lock=lock,
        checkpoint=found.checkpoint,
        build=build,
        executor_target=partial(executor.load(), **executor.offer.options),
        memory=fitted.memory,
        max_step_tokens=fitted.max_step_tokens,
        policy=Chosen(policy.offer.name, policy.offer.target, attrs.evolve(policy.query, options=policy.offer.options)),
        sinks=sinks,
        timings=timings,
    )


def _torch_device(platform: Platform, device: Device, part: Part | None, executor: Decision) -> torch.device:
    """Where this process computes, if it does: a process that only starts others touches no device."""
    if part is not None:
        return platform.torch_device(part.local_rank)
    if "processes" in executor.offer.capabilities:
        try:
            return torch.device(device.type)
        except RuntimeError:  # torch hears of another package's device where it is used
            return torch.device("meta")
    launched = "launched" in executor.offer.capabilities
    return platform.torch_device(int(os.environ.get("LOCAL_RANK", 0)) if launched else 0)


def _grammars(choices: GrammarChoices, executor: Decision) -> GrammarChoices:
    """They are compiled in threads, and ranks that nobody keeps in step would not be done at the same time."""
    if "launched" not in executor.offer.capabilities:
        return choices
    refused = f"executor {executor.offer.name} has no structured outputs; --distributed-executor-backend mp has"
    return attrs.evolve(choices, backends={}, refusals=dict.fromkeys(KINDS, refused))


def _metrics_query(settings: EngineSettings, fitted: Fitted) -> MetricsQuery:
    facts = {
        "max_model_len": fitted.model_build.max_model_len,
        "max_num_seqs": settings.max_rows,
        "max_num_batched_tokens": fitted.max_step_tokens,
        "dtype": fitted.model_build.dtype,
    }
    return MetricsQuery(model=settings.model, config=facts)
