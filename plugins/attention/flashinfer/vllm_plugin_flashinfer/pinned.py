"""Pinned memory that plans are copied from, none written again before the device has read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class PinnedBuffers:
    """Buffers like ``first``, as many as there are plans under way.

    FlashInfer has one a wrapper, which the next plan would overwrite while the copy of the last one still waits
    behind kernels: steps are launched before the ones before them have run.
    """

    def __init__(self, first: Tensor) -> None:
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = [(first, torch.cuda.Event())]

    @contextmanager
    def lend(self, owner: Any, name: str) -> Iterator[None]:
        """While inside, ``owner`` has a free buffer as its attribute ``name``."""
        found = next((pair for pair in self._buffers if pair[1].query()), None)
        if found is None:
            found = (torch.empty_like(self._buffers[0][0], pin_memory=True), torch.cuda.Event())
            self._buffers.append(found)
        setattr(owner, name, found[0])
        yield
        found[1].record()
