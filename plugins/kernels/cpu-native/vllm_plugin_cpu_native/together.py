"""The collective ``all_reduce`` of ranks on one host, through memory that they share."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from ctypes import addressof, c_char
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.collective import PeerLost
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_plugin_cpu_native import library

COUNTER = 64  # bytes: each rank's has a cache line of its own
NAME = 256  # bytes for the name of a file, and of a host
DTYPES = (torch.float32, torch.bfloat16)


class SharedMemorySum:
    """``interfaces.collective.Collective``; ``max_bytes`` of a tensor, ``timeout`` seconds to wait for another rank.

    Its memory goes with the last of the processes.
    """

    def __init__(self, query: CollectiveQuery, rank: int, bootstrap: Any, *, max_bytes: int, timeout: float) -> None:
        self._rank, self._world, self._room, self._timeout = rank, query.world_size, max_bytes, timeout
        self._step = 0
        self._sum = library.load().native_all_reduce
        self.one_host = len(set(_told(_host(), bootstrap))) == 1
        if self.one_host:
            self._shared = _open(rank, COUNTER * self._world + 2 * self._world * max_bytes, bootstrap)
            self._address = addressof(c_char.from_buffer(self._shared))

    def takes(self, x: Tensor) -> bool:
        return self.one_host and x.dtype in DTYPES and x.nbytes <= self._room and x.is_contiguous()

    def __call__(self, x: Tensor, dim: int = 0) -> Tensor:
        self._step += 1
        late = self._sum(
            x.dtype == torch.float32,
            self._address,
            self._rank,
            self._world,
            self._room,
            self._step,
            x.data_ptr(),
            x.numel(),
            self._timeout,
        )
        if late >= 0:
            raise PeerLost(f"rank {late} of the group did not come within {self._timeout:g} s")
        return x


def _open(rank: int, size: int, bootstrap: Any) -> mmap.mmap:
    """Memory that all ranks have, and that has no name once they do."""
    path = ""
    if rank == 0:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        descriptor, path = tempfile.mkstemp(prefix="vllm-core-", dir=folder)  # for its owner only
        os.ftruncate(descriptor, size)
        os.close(descriptor)
    path = _told(path, bootstrap)[0]
    try:
        with Path(path).open("r+b") as file:
            shared = mmap.mmap(file.fileno(), size)
        _told("open", bootstrap)
    finally:
        if rank == 0:
            with contextlib.suppress(OSError):
                Path(path).unlink()
    return shared


def _host() -> str:
    """Of this boot: containers of one machine may have one name and share no memory, but then no file either."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.uname().nodename


def _told(text: str, bootstrap: Any) -> list[str]:
    """What each rank said."""
    mine = torch.zeros(1, NAME, dtype=torch.uint8)
    data = text.encode()[:NAME]
    mine[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else mine[0, :0]
    rows = bootstrap.all_gather(mine, dim=0)
    return [bytes(row.tolist()).rstrip(b"\0").decode() for row in rows]
