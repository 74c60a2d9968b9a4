"""Which part of a checkpoint goes where in a bound model: planned from names and shapes before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import attrs
import torch

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.weights import Slices, TensorInfo, WeightSource
from vllm_core.weights.errors import WeightsError
from vllm_core.weights.mismatch import Mismatch
from vllm_core.weights.rules import Ignored, Match, Table
from vllm_core.weights.transforms import Part, Plain, drop_first, extent, full, size

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Copy", "loading_layers", "place", "plan_copies"]

_PLAIN = Plain()
ELSEWHERE = "another pipeline stage has it"


@attrs.frozen
class Copy:
    """A part of a checkpoint tensor and the place it goes to."""

    name: str
    part: Part
    range: SlotRange
    layer: Any
    parameter: Tensor
    slices: Slices  # what is read; () for the whole tensor
    nbytes: int  # of that, on disk

    @property
    def wanted(self) -> tuple[int, ...]:
        """Shape of what is written."""
        return extent(self.range.source, self.range.shape)

    @property
    def plain(self) -> bool:
        """Whether numbers are stored in the order in which they are used."""
        return self.part.arrange is None or self.part.arrange is drop_first

    def target(self) -> Tensor:
        """The part of the parameter that it fills. The layer must have room for it by now."""
        target = place(self.parameter, self.range)
        if target.numel() != prod(self.wanted):
            raise WeightsError(
                f"{self.name}: {list(self.wanted)} were to fill {list(target.shape)}: a bug of the layer's loads"
            )
        return target.view(self.wanted)

    @torch.inference_mode()
    def run(self, source: WeightSource) -> None:
        """Read and write, in whatever way the source has."""
        target = self.target()
        read_into = getattr(source, "read_into", None)
        if read_into is not None and self.plain and target.is_contiguous() and target.device.type == "cpu":
            read_into(self.name, self.slices, target)
            return
        data = source.read(self.name, self.slices)
        if self.part.arrange is not None:
            data = self.part.arrange(data)
        if tuple(data.shape) != self.wanted:
            raise WeightsError(
                f"{self.name}: its rule's transform gave {list(data.shape)} instead of {list(self.wanted)}"
            )
        target.copy_(data)


def loading_layers(model: nn.Module) -> dict[str, Any]:
    """The bound layers that take weights, by dotted path (a shared layer under each of its paths)."""
    return {path: m for path, m in model.named_modules(remove_duplicate=False) if getattr(m, "loads", None)}


def elsewhere_of(modules: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of a bound model below which only ranks of other pipeline stages have parameters."""
    return tuple(
        f"{path}.{name}".strip(".") for path, module in modules.items() for name in getattr(module, "elsewhere", ())
    )


def plan_copies(model: Any, tensors: Mapping[str, TensorInfo]) -> tuple[list[Copy], dict[str, str]]:
    """What is to be copied where, and the tensors that rules or layers leave unread (name -> reason)."""
    table, layers, modules = Table(model.weights), loading_layers(model), dict(model.named_modules())
    elsewhere = elsewhere_of(modules)
    wrong = Mismatch(table, tensors)
    copies: list[Copy] = []
    ignored: dict[str, str] = {}
    filled: dict[tuple[int, str, str], str] = {}
    for name, info in tensors.items():
        match = table.match(name)
        if match is None:
            wrong.unknown.append(name)
        elif isinstance(match, Ignored):
            ignored[name] = match.reason
        elif reason := getattr(modules.get(match.path), "unread", {}).get(match.parameter):
            ignored[name] = reason
        elif any(match.path == path or match.path.startswith(f"{path}.") for path in elsewhere):
            ignored[name] = ELSEWHERE
        else:
            for copy in _copies(info, match, layers, wrong):
                key = (id(layers[match.path]), match.parameter, copy.part.slot)
                if key in filled:
                    wrong.double(match, copy.part.slot, filled[key], name)
                filled[key] = name
                copies.append(copy)
    seen: set[int] = set()
    for path, layer in layers.items():
        if id(layer) not in seen:
            seen.add(id(layer))
            for parameter, slots in layer.loads.items():
                wrong.missing += [(path, parameter, s) for s in slots if (id(layer), parameter, s) not in filled]
    wrong.check()
    return copies, ignored


def _copies(info: TensorInfo, match: Match, layers: Mapping[str, Any], wrong: Mismatch) -> list[Copy]:
    layer = layers.get(match.path)
    slots = layer.loads.get(match.parameter) if layer is not None else None
    if slots is None:
        wrong.homeless(info.name, match, layers)
        return []
    try:
        parts = (match.rule.transform or _PLAIN).parts(info.shape, match.slot, slots)
    except (ValueError, IndexError) as e:
        wrong.shape(info, str(e))
        return []
    copies = []
    for part in parts:
        if part.slot not in slots:
            wrong.no_slot(info.name, match, part.slot, slots)
        elif part.shape != slots[part.slot].shape:
            wrong.shape(info, f"{match.path}.{match.parameter} takes {list(slots[part.slot].shape)}")
        else:
            nbytes = info.nbytes * size(part.read, info.shape) // max(1, size((), info.shape))
            slices = () if part.read == full((), info.shape) else part.read
            parameter = getattr(layer, match.parameter)
            copies.append(Copy(info.name, part, slots[part.slot], layer, parameter, slices, nbytes))
    return copies


def place(parameter: Tensor, range_: SlotRange) -> Tensor:
    """The view of the parameter that a slot fills."""
    return parameter[tuple(slice(start, stop) for start, stop in range_.target)] if range_.target else parameter
