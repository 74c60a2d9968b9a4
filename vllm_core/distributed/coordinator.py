"""Keeps data-parallel ranks in step whose layers share experts: each of them must make a step whenever one does.

Nobody uses it yet: engines of dense models need no agreement. Models with experts will, in the step loop.

Ranks agree on a step one ahead of the device. While step n computes, each rank says what it wants of step n + 1; the
answer, the same for all, is there when n has been launched or soon after: how many tokens every rank has, one graph for
all, and whether a rank without tokens makes a dummy step. It goes over a group of CPUs, in a thread of its own.

Between waves nothing is exchanged. A wave begins when a rank gets work and says so to the others, over whatever reaches
them (``announce``), and it ends with the step in which all have found that none has work, on all of them the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import attrs
import torch

from vllm_core.interfaces.group import ProcessGroup

__all__ = ["Agreed", "Coordinator", "Wish"]

EAGER = 0  # a graph key: op by op


@attrs.frozen
class Wish:
    """What a rank wants of the next step.

    tokens   0: it has no work
    graph    padded tokens of the recorded step that would do; EAGER: none does
    """

    tokens: int = 0
    graph: int = EAGER


@attrs.frozen
class Agreed:
    """What all ranks do next.

    tokens   of each rank, in rank order
    graph    padded tokens of the recorded step that all of them launch; EAGER: none
    dummy    this rank has no tokens and computes padding, for the others' sake
    over     nobody has work: no step, and the wave has ended
    """

    tokens: tuple[int, ...]
    graph: int
    dummy: bool
    over: bool


class Coordinator:
    """``wake`` and ``heard`` from any thread; ``ask`` and ``agreed`` in turns, from the step loop, while ``running``.

    group      of the ranks, on CPUs; nobody else may use it
    announce   tells all other ranks the number of a wave; they call ``heard`` with it. It may tell them twice, or late:
               a wave that they have begun already changes nothing, nor does one that has ended
    """

    def __init__(self, group: ProcessGroup, announce: Callable[[int], None]) -> None:
        self._group, self._announce = group, announce
        self._lock = threading.Lock()
        self._wave, self._running = 0, False
        self._asked: Future[torch.Tensor] | None = None
        self._thread = ThreadPoolExecutor(1, "vllm-core-coordinator")

    @property
    def running(self) -> bool:
        """Whether a wave is on: the loop must ask for steps, with or without work of its own."""
        return self._running

    def wake(self) -> None:
        """This rank has work."""
        with self._lock:
            if self._running:
                return
            self._wave, self._running = self._wave + 1, True
            wave = self._wave
        self._announce(wave)

    def heard(self, wave: int) -> None:
        """Another rank has begun a wave."""
        with self._lock:
            if wave > self._wave:
                self._wave, self._running = wave, True

    def ask(self, wish: Wish) -> None:
        """Say what this rank wants of the step after the one that is being computed. Does not wait for the others."""
        if not self._running or self._asked is not None:
            raise RuntimeError("a step is asked for once, and while a wave is on" if self._running else "no wave is on")
        mine = torch.tensor([[wish.tokens, wish.graph, self._wave]], dtype=torch.int64)  # [1, 3]
        self._asked = self._thread.submit(self._group.all_gather, mine, 0)

    def agreed(self, timeout: float | None = None) -> Agreed:
        """What they all said. Waits for the slowest, ``timeout`` seconds at most: ``TimeoutError``."""
        if self._asked is None:
            raise RuntimeError("no step was asked for")
        told = self._asked.result(timeout).tolist()  # [ranks, 3]
        self._asked = None
        waves = {wave for _, _, wave in told}
        if len(waves) != 1:
            raise RuntimeError(f"ranks are in different waves: {[wave for _, _, wave in told]}")
        tokens = tuple(count for count, _, _ in told)
        graphs = [graph for count, graph, _ in told if count]
        over = not graphs
        if over:
            with self._lock:
                self._running = self._wave > waves.pop()  # another one has been announced meanwhile
        return Agreed(
            tokens=tokens,
            graph=EAGER if over or EAGER in graphs else max(graphs),
            dummy=not over and tokens[self._group.rank] == 0,
            over=over,
        )

    def close(self) -> None:
        """Leave an exchange to itself that the others do not take part in any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
