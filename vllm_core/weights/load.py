"""Filling a bound model from a checkpoint, in place: a second call refills the same addresses.

Everything that names and shapes can tell is checked before the first byte of a tensor is read.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import attrs
import torch

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.weights import Progress, Slices, TensorInfo, WeightSource
from vllm_core.weights.errors import WeightsError
from vllm_core.weights.mismatch import Mismatch
from vllm_core.weights.rules import Ignored, Match, Table
from vllm_core.weights.transforms import Part, Plain, extent, full, size

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLAIN = Plain()
_THREADS = min(4, os.cpu_count() or 1)


@attrs.frozen(kw_only=True)
class LoadReport:
    """What loading did."""

    bytes: int  # read from the checkpoint by this rank
    seconds: float
    tensors: int  # read, in whole or in part
    ignored: Mapping[str, str]  # tensor -> reason


@attrs.frozen
class _Copy:
    """A part of a checkpoint tensor and the place it goes to."""

    name: str
    part: Part
    range: SlotRange
    layer: Any
    parameter: Tensor
    slices: Slices  # what is read; () for the whole tensor
    nbytes: int  # of that, on disk


class _Filling:
    """The tensors of one layer, which hears when the first is about to be read and when the last has been."""

    def __init__(self) -> None:
        self.copies: list[_Copy] = []
        self.nbytes = 0
        self._begun, self._done, self._lock = False, 0, threading.Lock()

    def add(self, copy: _Copy) -> None:
        self.copies.append(copy)
        self.nbytes += copy.nbytes

    def run(self, copy: _Copy, source: WeightSource) -> None:
        with self._lock:  # whoever comes second waits until there is room
            if not self._begun:
                call(copy.layer, "filling")
            self._begun = True
        _run(copy, source)
        with self._lock:
            self._done += 1
            last = self._done == len(self.copies)
        if last:
            call(copy.layer, "filled")


def load_weights(model: nn.Module, source: WeightSource, *, progress: Progress | None = None) -> LoadReport:
    """Fill every parameter of a bound model, then call its ``loaded()``.

    Raises one `WeightsError` that lists all tensors without a rule, parameters without a tensor,
    slots that are filled twice and shapes that do not fit; nothing has been read by then.
    """
    start = time.perf_counter()
    copies, ignored = plan_copies(model, source.tensors())
    fillings: dict[int, _Filling] = defaultdict(_Filling)
    for copy in sorted(copies, key=lambda c: -c.nbytes):
        fillings[id(copy.layer)].add(copy)
    total, done, lock = sum(c.nbytes for c in copies), 0, threading.Lock()

    def run(copy: _Copy) -> None:
        nonlocal done
        fillings[id(copy.layer)].run(copy, source)
        with lock:
            done += copy.nbytes
            if progress is not None:
                progress(done, total, copy.name)

    with single_threaded(), ThreadPoolExecutor(_THREADS, "weights") as pool:
        # Layer by layer, so that few of them are begun at a time; the largest first, so that the threads end together.
        order = sorted(fillings.values(), key=lambda filling: -filling.nbytes)
        futures = [pool.submit(run, copy) for filling in order for copy in filling.copies]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    finish(model)
    return LoadReport(
        bytes=total, seconds=time.perf_counter() - start, tensors=len({c.name for c in copies}), ignored=ignored
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """Torch computes without threads of its own, here and in threads that start meanwhile.

    Copies gain little from them, and on busy cores their barriers cost a lot: loading SmolLM2 took
    14 s instead of 0.4 s, filling it with random weights 3.5 s instead of 0.04 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def loading_layers(model: nn.Module) -> dict[str, Any]:
    """The bound layers that take weights, by dotted path (a shared layer under each of its paths)."""
    return {path: m for path, m in model.named_modules(remove_duplicate=False) if getattr(m, "loads", None)}


def call(layer: Any, hook: str) -> None:
    """``filling`` or ``filled`` of a layer that has it."""
    if callable(found := getattr(layer, hook, None)):
        found()


def finish(module: nn.Module) -> None:
    """All parameters are filled: the outermost layers with a ``loaded()`` check and repack themselves and below."""
    if callable(hook := getattr(module, "loaded", None)):
        hook()
        return
    for child in module.children():
        finish(child)


def plan_copies(model: Any, tensors: Mapping[str, TensorInfo]) -> tuple[list[_Copy], dict[str, str]]:
    """What is to be copied where, and the tensors that rules or layers leave unread (name -> reason)."""
    table, layers, modules = Table(model.weights), loading_layers(model), dict(model.named_modules())
    wrong = Mismatch(table, tensors)
    copies: list[_Copy] = []
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


def _copies(info: TensorInfo, match: Match, layers: Mapping[str, Any], wrong: Mismatch) -> list[_Copy]:
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
            copies.append(_Copy(info.name, part, slots[part.slot], layer, parameter, slices, nbytes))
    return copies


@torch.inference_mode()
def _run(copy: _Copy, source: WeightSource) -> None:
    target = place(copy.parameter, copy.range)
    wanted = extent(copy.range.source, copy.range.shape)
    if target.numel() != prod(wanted):
        raise WeightsError(f"{copy.name}: {list(wanted)} were to fill {list(target.shape)}: a bug of the layer's loads")
    target = target.view(wanted)
    read_into = getattr(source, "read_into", None)
    if read_into is not None and copy.part.arrange is None and target.is_contiguous() and target.device.type == "cpu":
        read_into(copy.name, copy.slices, target)
        return
    data = source.read(copy.name, copy.slices)
    if copy.part.arrange is not None:
        data = copy.part.arrange(data)
    if tuple(data.shape) != wanted:
        raise WeightsError(f"{copy.name}: its rule's transform gave {list(data.shape)} instead of {list(wanted)}")
    target.copy_(data)


def place(parameter: Tensor, range_: SlotRange) -> Tensor:
    """The view of the parameter that a slot fills."""
    return parameter[tuple(slice(start, stop) for start, stop in range_.target)] if range_.target else parameter
