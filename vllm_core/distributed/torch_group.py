"""Groups over torch's backends: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from vllm_core.interfaces.collective import PeerLost

LOOPBACK = "127.0.0.1"
HALVES = (torch.bfloat16, torch.float16)
KEPT = 8  # tensors on their way to a rank, at least, before a sender waits for the first of them


LINGER = 0.1  # seconds in which gloo's threads have certainly let go of their last tensors


class TorchGroup:
    """Ranks joined by one of torch's backends (``dist.ProcessGroupGloo``, ``dist.ProcessGroupNCCL``).

    The backend is used as it is, past torch's table of default groups, so that one process may have several
    ranks in its threads.

    ordered   sum in the order of ranks, whatever the size: backends cut tensors into parts, and sum each in an
              order of its own, so that a token's sum would depend on how many stand beside it. Slower
    """

    def __init__(self, backend: Any, ordered: bool = False) -> None:
        self.backend = backend
        self._ordered = ordered and backend.size() > 2  # a sum of two has one order
        self.rank: int = backend.rank()
        self.size: int = backend.size()
        # By receiver, who may be late: gloo reads a tensor until the other side has it.
        self._sent: list[deque[tuple[Any, Tensor]]] = [deque() for _ in range(self.size)]
        self._kept = max(KEPT, 2 * self.size)

    def all_reduce(self, x: Tensor) -> Tensor:
        """In place if ``x`` is contiguous."""
        if self.size == 1:
            return x
        if self._ordered:
            first, *others = self._gather(x)
            total = first.float() if x.dtype in HALVES else first  # rounded once, as whoever else adds up may do it
            for part in others:
                total += part
            return total.to(x.dtype)
        x = x.contiguous()
        _wait(self.backend.allreduce, [x])
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        return x if self.size == 1 else torch.cat(self._gather(x), dim=dim)

    def _gather(self, x: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        _wait(self.backend.allgather, [parts], [x.contiguous()])
        return parts

    def send(self, x: Tensor, to: int) -> None:
        with told():
            sent = self._sent[to]
            sent.append((self.backend.send([x], to, 0), x))
            while len(sent) > self._kept or (sent and sent[0][0].is_completed()):
                sent.popleft()[0].wait()

    def receive(self, x: Tensor, source: int) -> Tensor:
        _wait(self.backend.recv, [x], source, 0)
        return x


@contextmanager
def told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"another rank did not take part: {error}") from error


def _wait(operation: Callable[..., Any], *arguments: Any) -> None:
    with told():
        operation(*arguments).wait()


@cache
def _linger_at_exit() -> None:
    """gloo's threads let go of tensors a little after a call; one that does so in an ending interpreter aborts it."""
    atexit.register(time.sleep, LINGER)


def join(
    kind: str,
    store: dist.Store,
    name: str,
    rank: int,
    size: int,
    timeout: float,
    address: str = LOOPBACK,
    ordered: bool = False,
) -> TorchGroup:
    """Meet the other ranks of the group ``name`` at ``store``.

    kind      of device: "cpu" or "cuda", whose current device this rank uses; ``ValueError`` for others
    timeout   seconds, for the meeting and on CPUs for each call
    address   of this host, where the others find this rank; "": as gloo chooses (``GLOO_SOCKET_IFNAME``)
    ordered   as `TorchGroup` has it
    """
    place = dist.PrefixStore(name, store)
    patience = timedelta(seconds=timeout)
    if kind == "cpu":
        _linger_at_exit()
        gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        gloo._timeout = patience
        make = dist.ProcessGroupGloo
        gloo._devices = [make.create_device(hostname=address) if address else make.create_default_device()]
        return TorchGroup(dist.ProcessGroupGloo(place, rank, size, gloo), ordered)
    if kind != "cuda":
        raise ValueError(
            f"ranks on {kind} devices cannot meet yet: groups are made for CPUs and CUDA only; one rank can run there"
        )
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = patience
    return TorchGroup(dist.ProcessGroupNCCL(place, rank, size, options), ordered)
