"""A checkpoint's tensors with a few replaced, added or left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs
from torch import Tensor

from vllm_core.interfaces.weights import Slices, TensorInfo, WeightSource


class Overlay:
    """`interfaces.weights.WeightSource` over another one."""

    def __init__(
        self, source: WeightSource, replaced: Mapping[str, Tensor] | None = None, without: Collection[str] = ()
    ) -> None:
        self._source, self._replaced, self._without = source, dict(replaced or {}), frozenset(without)

    def tensors(self) -> Mapping[str, TensorInfo]:
        found = {name: info for name, info in self._source.tensors().items() if name not in self._without}
        for name, tensor in self._replaced.items():
            new = TensorInfo(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.nbytes)
            found[name] = attrs.evolve(found[name], shape=new.shape, dtype=new.dtype) if name in found else new
        return found

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        if name in self._replaced:
            return self._replaced[name][tuple(slice(*s) for s in slices)]
        return self._source.read(name, slices)

    def close(self) -> None:
        """The other source is not ours to close."""
