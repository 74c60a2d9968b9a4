"""A GGUF file as a weight source: tensors under Hugging Face's names, dequantized when they are read, or as blocks."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from math import prod

import torch
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.weights import Slices, TensorInfo
from vllm_core.weights.transforms import Part, extent
from vllm_plugin_gguf.architectures.record import Stored
from vllm_plugin_gguf.dequantize import PLAIN, Type, dequantize_into
from vllm_plugin_gguf.file import GgufTensor


def packed_name(kind: Type) -> str:
    """Last segment of the name of a matrix whose blocks are kept, and of the parameter that they fill."""
    return f"weight_{kind.name.lower()}"


def kept_modules(names: Mapping[str, Stored], tables: frozenset[str]) -> dict[str, Type]:
    """Modules of the safetensors checkpoint whose matrices can stay in blocks -> their types."""
    found = {}
    for name, stored in names.items():
        module, _, parameter = name.rpartition(".")
        if parameter == "weight" and len(stored.tensor.shape) == 2 and module not in tables:
            found[module] = stored.tensor.type
    return found


class GgufSource:
    """``kept``: modules whose matrices are given as blocks, uint8 [rows, blocks of a row, bytes of a block]."""

    def __init__(self, names: Mapping[str, Stored], kept: Mapping[str, Type]) -> None:
        self._stored: dict[str, tuple[Stored, bool]] = {}
        self._infos: dict[str, TensorInfo] = {}
        for name, stored in names.items():
            module, _, parameter = name.rpartition(".")
            packed = parameter == "weight" and module in kept
            t = stored.tensor
            dtype = "uint8" if packed else str(PLAIN.get(t.type, torch.float32)).removeprefix("torch.")
            if packed:
                name = f"{module}.{packed_name(t.type)}"
            shape = _part(stored, _shape(t, packed), ()).shape
            self._stored[name] = stored, packed
            self._infos[name] = TensorInfo(name, shape, dtype, t.nbytes * prod(shape) // prod(_shape(t, packed)))

    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        info = self._infos[name]
        out = torch.empty(extent(slices, info.shape), dtype=getattr(torch, info.dtype))
        self.read_into(name, slices, out)
        return out

    def read_into(self, name: str, slices: Slices, out: Tensor) -> None:
        """As ``read``, straight into a contiguous tensor on the CPU, of any float dtype (of uint8 for blocks)."""
        stored, packed = self._stored[name]
        self._read(stored, packed, slices, out)
        _forget(stored.tensor)

    def _read(self, stored: Stored, packed: bool, slices: Slices, out: Tensor) -> None:
        t = stored.tensor
        part = _part(stored, _shape(t, packed), slices)
        if packed:
            cut = _blocks(t)[tuple(slice(*r) for r in part.read)]
            out.copy_(part.arrange(cut) if part.arrange is not None else cut)
            return
        numbers = GGML_QUANT_SIZES[t.type][0]
        (start, stop), rows = part.read[-1], part.read[:-1] or ((0, 1),)
        first, last = start // numbers, -(-stop // numbers)  # whole blocks that hold the columns
        cut = _blocks(t)[(*(slice(*r) for r in rows), slice(first, last))].contiguous()
        if part.arrange is None and not stored.shift and (first * numbers, last * numbers) == (start, stop):
            dequantize_into(cut, t.type, out)
            return
        wide = torch.empty(*cut.shape[:-2], (last - first) * numbers, dtype=PLAIN.get(t.type, torch.float32))
        dequantize_into(cut, t.type, wide)
        made = wide[..., start - first * numbers : stop - first * numbers] + stored.shift
        made = made.view(-1) if len(part.read) == 1 else made
        out.copy_(part.arrange(made) if part.arrange is not None else made)

    def close(self) -> None:
        self._stored.clear()  # the map goes with the last reference to the file


def _forget(t: GgufTensor) -> None:
    """Give the tensor's pages of the map back. Nobody wrote to them: read again, they come from the file again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        first, last = -(-t.offset // mmap.PAGESIZE), (t.offset + t.nbytes) // mmap.PAGESIZE
        if last > first:
            t.data.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def _shape(t: GgufTensor, packed: bool) -> tuple[int, ...]:
    """As stored: of the numbers, or of the blocks."""
    if not packed:
        return t.shape
    numbers, size = GGML_QUANT_SIZES[t.type]
    return (*t.shape[:-1], t.shape[-1] // numbers, size)


def _part(stored: Stored, shape: tuple[int, ...], slices: Slices) -> Part:
    """What to read of the stored tensor for a part of it as the safetensors checkpoint has it."""
    (part,) = stored.transform.parts(shape, "", {"": SlotRange(shape, slices)})
    return part


def _blocks(t: GgufTensor) -> Tensor:
    """The file's own bytes, uint8 [rows, ..., blocks of a row, bytes of a block]; a vector is one row."""
    flat = torch.frombuffer(t.data, dtype=torch.uint8, count=t.nbytes, offset=t.offset)
    numbers, size = GGML_QUANT_SIZES[t.type]
    rows = t.shape[:-1] or (1,)
    return flat.view(*rows, t.shape[-1] // numbers, size)
