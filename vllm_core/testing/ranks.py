"""Several ranks in the threads of one process, with real gloo groups between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from torch import distributed as dist

from vllm_core.distributed.groups import join_groups
from vllm_core.distributed.layout import Layout
from vllm_core.interfaces.group import ProcessGroup

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a rank waits for another


class Ranks:
    """``layout.world`` threads that live until ``close``. ``run(work)`` calls ``work(rank, groups)`` in each.

    A rank that fails leaves the others waiting: what they raise is dropped, and the group cannot be used again.
    """

    def __init__(self, layout: Layout, patience: float = PATIENCE) -> None:
        self.layout = layout
        self._threads = [ThreadPoolExecutor(1, f"rank-{rank}") for rank in range(layout.world)]
        store = dist.HashStore()
        self.groups: list[Mapping[str, ProcessGroup]] = self._each(
            lambda rank: join_groups(layout, rank, store, "cpu", patience)
        )

    def run(self, work: Callable[[int, Mapping[str, ProcessGroup]], T]) -> list[T]:
        """Results in rank order, or the exception of the rank that failed first."""
        return self._each(lambda rank: work(rank, self.groups[rank]))

    def begin(self, work: Callable[[int, Mapping[str, ProcessGroup]], T]) -> list[Future[T]]:
        """The same without waiting; what was begun before is done first."""
        return [thread.submit(work, rank, self.groups[rank]) for rank, thread in enumerate(self._threads)]

    def _each(self, work: Callable[[int], T]) -> list[T]:
        futures = [thread.submit(work, rank) for rank, thread in enumerate(self._threads)]
        done, _ = wait(futures, return_when="FIRST_EXCEPTION")
        for future in done:
            future.result()
        return [future.result() for future in futures]

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
