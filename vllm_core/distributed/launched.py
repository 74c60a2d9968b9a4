"""The executor "external_launcher": every rank is a whole engine of its own, started by torchrun or its like.

All ranks are given the same requests in the same order and schedule the same steps, so that no plan is sent. Each
returns all results. What depends on time is left out: a step is fetched when the next one has been launched, and
never because it happens to be done, and no output is held to a grammar, which another thread compiles.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import attrs
import torch
from torch import distributed as dist

from vllm_core.distributed.groups import join_groups, meet
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.steps import Pending, StepPlan, StepResult
from vllm_core.plugins.errors import LockMismatch
from vllm_core.runner.inprocess import InProcessExecutor
from vllm_core.runner.runner import Runner

__all__ = ["LaunchedExecutor"]

_met = itertools.count()  # engines of this process so far: ranks make theirs in the same order
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LaunchedExecutor(InProcessExecutor):
    """``interfaces.executor.Executor``. The launcher ends the others when one rank ends."""

    alone = False

    def __init__(self, build: Any) -> None:
        if missing := [name for name in VARIABLES if name not in os.environ]:
            raise ValueError(
                f"external_launcher: {', '.join(missing)} must be set for each rank, and are not here.\n"
                f"  instead torchrun --nproc-per-node {build.model.layout.world} PROGRAM sets them"
            )
        started, world = int(os.environ["WORLD_SIZE"]), build.model.layout.world
        if started != world:
            raise ValueError(
                f"external_launcher: {started} ranks were started, and tensor_parallel_size makes {world}.\n"
                f"  instead torchrun --nproc-per-node {world}"
            )
        if build.model.layout.pp > 1:
            raise ValueError(
                "external_launcher: a pipeline stage does not know what the last one has sampled.\n"
                "  instead --tensor-parallel-size, or --distributed-executor-backend mp"
            )
        super().__init__(_Launched(build))

    def launch(self, plan: StepPlan) -> Pending:
        return _NotBefore(super().launch(plan))


class _Launched:
    """`runner.inprocess.Build` of this rank."""

    def __init__(self, build: Any) -> None:
        self._build = build

    def make_runner(self) -> tuple[Runner, Capacity]:
        build = self._build
        rank = int(os.environ["RANK"])
        store, _, _ = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(f"engine {next(_met)}", store)  # an earlier engine's keys are still there
        timeout = build.recipe.settings["collective_timeout"]
        world, kind = build.model.layout.world, build.torch_device.type
        meet(store, "begun", rank, world)
        groups = join_groups(
            build.model.layout, rank, store, kind, timeout, "", build.collectives, build.model.batch_invariant
        )
        pages = build.num_pages
        if (group := groups.get("tp")) is not None:
            _check_alike(build.recipe.digest, group, build.torch_device)
            pages = int(_of_all(pages, group, build.torch_device).min())
        return attrs.evolve(build, num_pages=pages).make_runner(groups, lambda: meet(store, "loaded", rank, world))


@attrs.define
class _NotBefore:
    """A step that is over for all ranks at the same point of their schedules."""

    pending: Pending

    def done(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> StepResult:
        return self.pending.result(timeout)


def _of_all(number: int, group: ProcessGroup, device: torch.device) -> torch.Tensor:
    return group.all_gather(torch.tensor([number], device=device))


def _check_alike(digest: str, group: ProcessGroup, device: torch.device) -> None:
    """Ranks of other packages or settings would give other results, or wait for each other for ever."""
    found = _of_all(int(digest[:15], 16), group, device).tolist()
    if len(set(found)) > 1:
        others = [rank for rank, number in enumerate(found) if number != found[group.rank]]
        raise LockMismatch(
            "the ranks were resolved to different choices.",
            why=f"rank {group.rank} has lock {digest[:12]}, ranks {', '.join(map(str, others))} have others",
            instead="give all ranks the same packages and settings",
        )
