"""The quantization method of matrices that stay in the blocks of their GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from gguf.constants import GGML_QUANT_SIZES
from torch import Tensor, nn

from vllm_core.interfaces.quantization import LinearShape, ParamSpec
from vllm_plugin_gguf.dequantize import OWN, PLAIN, Type, dequantize_into
from vllm_plugin_gguf.products import Product, Workspace, product_for
from vllm_plugin_gguf.source import packed_name


class GgufQuantization:
    """``config["types"]``: module of the checkpoint -> GGUF type of its matrix, as `KeptGgufCheckpoint` writes it."""

    def __init__(self, config: dict[str, Any]) -> None:
        by_name = Type.__members__
        if unknown := set(config["types"].values()) - {kind.name for kind in (*PLAIN, *OWN)}:
            raise ValueError(f"quantization_config has GGUF types that cannot be kept: {', '.join(sorted(unknown))}")
        self._types = {name: by_name[kind] for name, kind in config["types"].items()}
        self._workspace = Workspace()

    def linear(self, checkpoint_name: str, shape: LinearShape) -> GgufLinear | None:
        return self.matrices({slot: [checkpoint_name] for slot in shape.slots}, shape)

    def matrices(self, names: Mapping[str, Sequence[str]], shape: LinearShape) -> GgufLinear | None:
        found = {slot: self._type(candidates) for slot, candidates in names.items()}
        kinds = {slot: kind for slot, kind in found.items() if kind is not None}
        if not kinds:
            return None
        if lacking := [names[slot][0] for slot in found if slot not in kinds]:
            others = ", ".join(names[slot][0] for slot in kinds)
            raise ValueError(f"the GGUF file has no matrix {lacking[0]}, which is multiplied together with {others}")
        return GgufLinear(kinds, self._workspace)

    def embedding(self, names: Sequence[str], shape: LinearShape) -> GgufLinear | None:
        return self.matrices({"": names}, shape)

    def _type(self, candidates: Sequence[str]) -> Type | None:
        return next((self._types[name] for name in candidates if name in self._types), None)


@attrs.frozen
class _Piece:
    """Rows of a parameter that make columns of the output."""

    parameter: str
    rows: slice
    columns: slice
    multiply: Product


class GgufLinear:
    """One parameter a GGUF type, uint8 [rows, blocks of a row, bytes of a block]: slots may have different types."""

    def __init__(self, kinds: Mapping[str, Type], workspace: Workspace) -> None:
        self.kinds = dict(kinds)  # slot -> type
        self._workspace = workspace
        self._pieces: list[_Piece] = []
        self._out_size = 0
        self._dtype = torch.float32

    def params(self, shape: LinearShape, dtype: torch.dtype) -> list[ParamSpec]:
        slots: dict[Type, dict[str, int]] = {}  # type -> its slots, with their rows
        self._pieces, self._out_size, self._dtype = [], 0, dtype
        for slot, size in zip(shape.slots, shape.out_sizes, strict=True):
            kind = self.kinds[slot]
            first = sum(slots.setdefault(kind, {}).values())
            slots[kind][slot] = size
            self._add(kind, first, size)
        specs = [self._spec(kind, mine, shape.in_size) for kind, mine in slots.items()]
        if shape.bias:
            specs.append(ParamSpec(name="bias", shape=(self._out_size,), dtype=dtype, in_dim=None))
        return specs

    def _add(self, kind: Type, first: int, size: int) -> None:
        start, end = self._out_size, self._out_size + size
        name, last = packed_name(kind), self._pieces[-1] if self._pieces else None
        if last is not None and last.parameter == name:  # one product for neighbours
            self._pieces[-1] = attrs.evolve(
                last, rows=slice(last.rows.start, first + size), columns=slice(last.columns.start, end)
            )
        else:
            multiply = product_for(kind, self._workspace)
            self._pieces.append(_Piece(name, slice(first, first + size), slice(start, end), multiply))
        self._out_size = end

    def _spec(self, kind: Type, slots: Mapping[str, int], in_size: int) -> ParamSpec:
        numbers, size = GGML_QUANT_SIZES[kind]
        if in_size % numbers:
            raise ValueError(
                f"{in_size} inputs of this rank are no multiple of the {numbers} numbers of a {kind.name} block; use"
                " fewer ranks"
            )
        return ParamSpec(
            name=packed_name(kind),
            shape=(sum(slots.values()), in_size // numbers, size),
            dtype=torch.uint8,
            in_pack=numbers,
            slots=tuple(slots),
        )

    def loaded(self, layer: nn.Module) -> None:
        """Nothing is repacked: products read the file's own blocks."""

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        made = layer._parameters  # a plain dict: nn.Module's own attribute lookup is several times slower
        y = x.new_empty(len(x), self._out_size)
        for piece in self._pieces:
            piece.multiply(x, made[piece.parameter][piece.rows], y[:, piece.columns])  # type: ignore[index]
        bias = made.get("bias")
        return y if bias is None else y.add_(bias)

    def rows(self, layer: nn.Module, ids: Tensor) -> Tensor:
        """Of a table of embeddings: only the rows that are looked up are dequantized."""
        (kind,) = self.kinds.values()
        blocks = layer._parameters[packed_name(kind)]
        out = torch.empty(len(ids), self._width(blocks, kind), dtype=self._dtype, device=ids.device)
        dequantize_into(blocks[ids], kind, out)  # type: ignore[index]
        return out

    @staticmethod
    def _width(blocks: Any, kind: Type) -> int:
        return blocks.shape[1] * GGML_QUANT_SIZES[kind][0]
