"""A GGUF file as a weight source: tensors under Hugging Face's names, dequantized when they are read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.weights import Slices, TensorInfo
from vllm_core.weights.transforms import Part, Plain, Transform, extent
from vllm_plugin_gguf.dequantize import PLAIN, dequantize_into
from vllm_plugin_gguf.file import GgufFile, GgufTensor


class GgufSource:
    """``names`` maps tensors of the file to (name, how its rows are stored)."""

    def __init__(self, file: GgufFile, names: Mapping[str, tuple[str, Transform | None]]):
        self._file = file
        self._stored: dict[str, tuple[GgufTensor, Transform]] = {}
        self._infos: dict[str, TensorInfo] = {}
        for inner, (name, transform) in names.items():
            t = file.tensors[inner]
            dtype = str(PLAIN.get(t.type, torch.float32)).removeprefix("torch.")
            self._stored[name] = (t, transform or Plain())
            self._infos[name] = TensorInfo(name, t.shape, dtype, t.nbytes)

    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, slices: Slices = ()) -> Tensor:
        info = self._infos[name]
        out = torch.empty(extent(slices, info.shape), dtype=getattr(torch, info.dtype))
        self.read_into(name, slices, out)
        return out

    def read_into(self, name: str, slices: Slices, out: Tensor) -> None:
        """As ``read``, straight into a contiguous tensor on the CPU, of any float dtype."""
        t, transform = self._stored[name]
        (part,) = transform.parts(t.shape, "", {"": SlotRange(t.shape, slices)})
        numbers, size = GGML_QUANT_SIZES[t.type]
        start, stop = part.read[-1]
        first, last = start // numbers, -(-stop // numbers)  # whole blocks that hold the columns
        packed = self._rows(t, part, (first * size, last * size)).contiguous()
        if (first * numbers, last * numbers) == (start, stop):
            dequantize_into(packed, t.type, out)
            return
        wider = torch.empty(*out.shape[:-1], (last - first) * numbers, dtype=torch.float32)
        dequantize_into(packed, t.type, wider)
        out.copy_(wider[..., start - first * numbers : stop - first * numbers])

    def close(self) -> None:
        self._stored.clear()  # the map goes with the last reference to the file

    def _rows(self, t: GgufTensor, part: Part, columns: tuple[int, int]) -> Tensor:
        """The packed bytes of the rows and columns, rows in the order of the result."""
        flat = torch.frombuffer(self._file.data, dtype=torch.uint8, count=t.nbytes, offset=t.offset)
        if len(t.shape) == 1:
            # One row: a transform of rows sees numbers, which is only possible where they are stored plainly.
            whole = flat.view(t.shape[0], -1) if part.arrange is not None else flat
            if part.arrange is None:
                return whole[slice(*columns)]
            start, stop = part.read[0]
            return part.arrange(whole[start:stop]).contiguous().view(-1)
        numbers, size = GGML_QUANT_SIZES[t.type]
        bytes_ = flat.view(*t.shape[:-1], t.shape[-1] // numbers * size)
        cut = bytes_[(*(slice(a, b) for a, b in part.read[:-1]), slice(*columns))]
        return part.arrange(cut) if part.arrange is not None else cut
