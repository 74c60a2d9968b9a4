"""A place in a group whose other ranks are not there: for binding on the meta device, where shapes are all."""

from __future__ import annotations

import attrs
from torch import Tensor


@attrs.define
class DryGroup:
    """``size`` ranks of which this is ``rank``. Results have the right shapes and mean nothing."""

    rank: int = 0
    size: int = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        shape = list(x.shape)
        shape[dim] *= self.size
        return x.new_empty(shape)

    def send(self, x: Tensor, to: int) -> None:
        pass

    def receive(self, x: Tensor, source: int) -> Tensor:
        return x
