"""Groups over torch's backends: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from vllm_core.interfaces.collective import PeerLost

LOOPBACK = "127.0.0.1"
KEPT = 8  # tensors on their way to a rank, at least, before a sender waits for the first of them


class TorchGroup:
    """Ranks joined by one of torch's backends (``dist.ProcessGroupGloo``, ``dist.ProcessGroupNCCL``).

    The backend is used as it is, past torch's table of default groups, so that one process may have several
    ranks in its threads.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.rank: int = backend.rank()
        self.size: int = backend.size()
        # By receiver, who may be late: gloo reads a tensor until the other side has it.
        self._sent: list[deque[tuple[Any, Tensor]]] = [deque() for _ in range(self.size)]
        self._kept = max(KEPT, 2 * self.size)

    def all_reduce(self, x: Tensor) -> Tensor:
        """In place if ``x`` is contiguous."""
        if self.size == 1:
            return x
        x = x.contiguous()
        _wait(self.backend.allreduce, [x])
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        if self.size == 1:
            return x
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        _wait(self.backend.allgather, [parts], [x.contiguous()])
        return torch.cat(parts, dim=dim)

    def send(self, x: Tensor, to: int) -> None:
        with _told():
            sent = self._sent[to]
            sent.append((self.backend.send([x], to, 0), x))
            while len(sent) > self._kept or (sent and sent[0][0].is_completed()):
                sent.popleft()[0].wait()

    def receive(self, x: Tensor, source: int) -> Tensor:
        _wait(self.backend.recv, [x], source, 0)
        return x


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"another rank did not take part: {error}") from error


def _wait(operation: Callable[..., Any], *arguments: Any) -> None:
    with _told():
        operation(*arguments).wait()


def join(
    kind: str, store: dist.Store, name: str, rank: int, size: int, timeout: float, address: str = LOOPBACK
) -> TorchGroup:
    """Meet the other ranks of the group ``name`` at ``store``.

    kind      of device: "cpu" or "cuda", whose current device this rank uses
    timeout   seconds, for the meeting and on CPUs for each call
    address   of this host, where the others find this rank; "": as gloo chooses (``GLOO_SOCKET_IFNAME``)
    """
    place = dist.PrefixStore(name, store)
    patience = timedelta(seconds=timeout)
    if kind == "cpu":
        gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        gloo._timeout = patience
        make = dist.ProcessGroupGloo
        gloo._devices = [make.create_device(hostname=address) if address else make.create_default_device()]
        return TorchGroup(dist.ProcessGroupGloo(place, rank, size, gloo))
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = patience
    return TorchGroup(dist.ProcessGroupNCCL(place, rank, size, options))
