"""Host numbers of a step on their way to the device: many small arrays, one transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vllm_core.runner.device_events import new_event, runs_beside


def upload(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Each array (1-D, int64 or float64) as a device tensor of the same dtype and length.

    On the CPU the tensors share the arrays' memory, so the arrays must not be reused. Elsewhere
    they are views of one buffer, copied without waiting from pinned memory if the device runs beside the
    host: torch's host allocator hands a pinned block out again only after the copy that reads it has run.
    """
    for name, array in arrays.items():
        if array.dtype.itemsize != 8 or array.ndim != 1:
            raise TypeError(f"upload takes 1-D arrays of 8-byte numbers; {name!r} is {array.dtype} {array.shape}")
    if device.type == "cpu":
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    packed = np.concatenate([array.view(np.int64) for array in arrays.values()])
    whole = torch.from_numpy(packed)
    buffer = whole.pin_memory().to(device, non_blocking=True) if runs_beside(device) else whole.to(device)
    parts = buffer.split([len(array) for array in arrays.values()])
    return {
        name: part.view(torch.float64) if array.dtype == np.float64 else part
        for (name, array), part in zip(arrays.items(), parts, strict=True)
    }


def to_host(tensor: Tensor) -> tuple[Tensor, Any | None]:
    """The tensor in the host's memory, once the event has come; without one it is there already."""
    if not runs_beside(tensor.device):
        return tensor.cpu(), None
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = new_event(tensor.device)
    event.record()
    return host, event


class HostBuffers:
    """Memory for numbers on their way to a device. None is written to before the copy that reads it has run.

    size     numbers (int64) that a buffer holds
    """

    SPARE = 4  # more than steps in flight, so that nobody waits

    def __init__(self, size: int, device: torch.device) -> None:
        self._device = device
        pinned = device.type != "cpu"
        self._buffers = [torch.zeros(size, dtype=torch.int64, pin_memory=pinned) for _ in range(self.SPARE)]
        self._arrays = [buffer.numpy() for buffer in self._buffers]
        self._copied = [torch.cuda.Event() if pinned else None for _ in self._buffers]
        self._next = 0

    @contextmanager
    def take(self, count: int) -> Iterator[tuple[np.ndarray, Callable[[Tensor], None]]]:
        """int64 [count] to be filled, and what copies it to a tensor of that length without waiting."""
        i, self._next = self._next, (self._next + 1) % self.SPARE
        if (event := self._copied[i]) is not None and not event.query():
            event.synchronize()

        def move(target: Tensor) -> None:
            target.copy_(self._buffers[i][:count], non_blocking=True)
            if event is not None:
                event.record()

        yield self._arrays[i][:count], move
