"""Pages wait here until no launched step can touch them any more."""

from __future__ import annotations

from collections import deque

from vllm_core.engine.cache.pool import PagePool


class Fence:
    """Steps are numbered upwards, launched and retired in that order.

    A page that a sequence gives up is still read or written by the steps that were launched
    with the sequence. It keeps its owner until the last of them has retired.
    """

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self.launched = -1  # the newest step launched
        self.retired = -1  # the newest step retired
        self.waiting: deque[tuple[int, list[int]]] = deque()  # (step, pages); not in order of steps
        self.num_waiting = 0  # pages

    def launch(self, step: int) -> None:
        if step <= self.launched:
            raise ValueError(f"step {step} was launched after step {self.launched}: steps count upwards")
        self.launched = step

    def release(self, pages: list[int], step: int) -> None:
        """Give up pages that steps up to ``step`` may use. Those to be evicted first come first."""
        if not pages:
            return
        if step <= self.retired:
            self._pool.release(pages)
        else:
            self.waiting.append((step, pages))
            self.num_waiting += len(pages)

    def retire(self, step: int) -> None:
        """No step up to ``step`` runs any more."""
        if not self.retired < step <= self.launched:
            raise ValueError(
                f"step {step} cannot retire: the newest launched is {self.launched}, {self.retired} has retired"
            )
        self.retired = step
        for _ in range(len(self.waiting)):
            last, pages = self.waiting.popleft()
            self.num_waiting -= len(pages)
            self.release(pages, last)
