"""The contract of weight formats: a checkpoint on disk, whatever its layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from torch import Tensor

Slices = tuple[tuple[int, int], ...]
"""(start, stop) a dimension; () reads all."""


@attrs.frozen
class TensorInfo:
    """A tensor in a checkpoint, under the name that weight rules match."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # torch's name; for packed formats the dtype that ``read`` returns
    nbytes: int  # on disk


@attrs.frozen
class Stored:
    """Where a tensor lies in a file as it is: row after row, in the dtype and with the bytes of its `TensorInfo`."""

    path: str
    offset: int  # of the first number, bytes from the file's beginning


class WeightSource(Protocol):
    """Tensors by name. ``read`` touches only the bytes it needs; it is called from several threads.

    A source that unpacks may also have ``read_into(name, slices, out)``, which fills a contiguous
    tensor on the CPU, of any float dtype, without a tensor in between. One whose tensors lie in files
    as they are may have ``locate(name) -> Stored | None``: then they go to a device without passing
    through tensors on the CPU.
    """

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors, without reading them."""

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        """The tensor, or a rectangular part of it, on the CPU."""

    def close(self) -> None: ...


@attrs.frozen(kw_only=True)
class TokenizerFiles:
    """Where the tokenizer is: a folder in transformers' layout, or parts read from the checkpoint."""

    path: str = ""  # folder; "" when the parts below are used
    tokenizer_json: str = ""  # content of a tokenizer.json
    settings: Mapping[str, Any] = attrs.field(factory=dict)  # content of tokenizer_config.json


class Checkpoint(Protocol):
    """A weight format's target: ``Target(path)`` opens the checkpoint without reading tensors."""

    config: dict[str, Any]  # config.json, or the same made from metadata
    generation_config: dict[str, Any]

    def __init__(self, path: str) -> None: ...

    @property
    def source(self) -> WeightSource: ...

    @property
    def tokenizer(self) -> TokenizerFiles | None:
        """None if the checkpoint brings none."""


class Progress(Protocol):
    """Told while weights are read."""

    def __call__(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` bytes; ``name`` of the tensor just read."""


WeightNames = Iterable[str]
