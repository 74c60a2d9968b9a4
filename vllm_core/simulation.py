"""What a simulation of an engine imports: the scheduler, its cache and its loop, which need no device. No torch.

`OverlappedLoop` and `PlainLoop` ask an executor for ``launch(plan)`` only, and of what that gives for ``done()`` and
``result()``. An executor with a clock of its own makes them run at that clock's time (vllm-plugin-simulate).
"""

from __future__ import annotations

from vllm_core.cli.bench.peers.workloads import ALL, LONGEST, TITLES, Workloads
from vllm_core.engine.cache.manager import CacheManager
from vllm_core.engine.errors import RequestError
from vllm_core.engine.loop import OverlappedLoop, PlainLoop, StepLoop
from vllm_core.engine.request import Request
from vllm_core.engine.scheduler import Scheduler

__all__ = [
    "ALL", "LONGEST", "TITLES", "CacheManager", "OverlappedLoop", "PlainLoop", "Request", "RequestError", "Scheduler",
    "StepLoop", "Workloads",
]  # fmt: skip
