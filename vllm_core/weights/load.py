"""Filling a bound model from a checkpoint, in place: a second call refills the same addresses.

Everything that names and shapes can tell is checked before the first byte of a tensor is read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import torch

from vllm_core.interfaces.weights import Progress, WeightSource
from vllm_core.weights.copies import Copy, loading_layers, place, plan_copies
from vllm_core.weights.pieces import Piece, pieces
from vllm_core.weights.stream import Lanes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadReport", "call", "finish", "load_weights", "loading_layers", "place", "plan_copies", "single_threaded"]

_THREADS = min(4, os.cpu_count() or 1)


@attrs.frozen(kw_only=True)
class LoadReport:
    """What loading did."""

    bytes: int  # read from the checkpoint by this rank
    seconds: float
    tensors: int  # read, in whole or in part
    ignored: Mapping[str, str]  # tensor -> reason


@attrs.frozen
class _Job:
    """What one thread does at a time: a piece of a copy, or a whole one that has no pieces."""

    copy: Copy
    piece: Piece | None
    nbytes: int


class _Filling:
    """The jobs of one layer, which hears when the first is about to be read and when the last has been."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.copies: list[Copy] = []
        self.left = 0  # jobs
        self.nbytes = 0
        self._begun, self._lock = False, threading.Lock()

    def add(self, copy: Copy) -> None:
        self.copies.append(copy)
        self.nbytes += copy.nbytes

    def run(self, job: _Job, source: WeightSource, lanes: Lanes) -> None:
        with self._lock:  # whoever comes second waits until there is room
            if not self._begun:
                call(self.layer, "filling")
                lanes.made_room(self)
            self._begun = True
        if job.piece is None:
            job.copy.run(source)
        else:
            lanes.fill(job.piece, self)
        with self._lock:
            self.left -= 1
            last = self.left == 0
        if last:
            lanes.wait_for(self)
            call(self.layer, "filled")


def load_weights(model: nn.Module, source: WeightSource, *, progress: Progress | None = None) -> LoadReport:
    """Fill every parameter of a bound model, then call its ``loaded()``.

    Raises one `WeightsError` that lists all tensors without a rule, parameters without a tensor,
    slots that are filled twice and shapes that do not fit; nothing has been read by then.
    """
    start = time.perf_counter()
    copies, ignored = plan_copies(model, source.tensors())
    fillings: dict[int, _Filling] = {}
    for copy in sorted(copies, key=lambda c: -c.nbytes):
        fillings.setdefault(id(copy.layer), _Filling(copy.layer)).add(copy)
    jobs = _jobs(fillings.values(), source)
    total, done, lock = sum(c.nbytes for c in copies), 0, threading.Lock()
    device = next((job.copy.parameter.device for job in jobs if job.piece is not None), None)

    def run(job: _Job, lanes: Lanes) -> None:
        nonlocal done
        fillings[id(job.copy.layer)].run(job, source, lanes)
        with lock:
            done += job.nbytes
            if progress is not None:
                progress(done, total, job.copy.name)

    with single_threaded(), Lanes(device) as lanes:
        _in_threads(jobs, lanes.threads if device is not None else _THREADS, lambda job: run(job, lanes))
    finish(model)
    return LoadReport(
        bytes=total, seconds=time.perf_counter() - start, tensors=len({c.name for c in copies}), ignored=ignored
    )


def _jobs(fillings: Iterable[_Filling], source: WeightSource) -> list[_Job]:
    """In the order in which they are begun.

    Layer by layer, so that few of them are begun at a time; the largest first, so that the threads end together.
    What goes straight from files to a device is read in the order in which it lies there.
    """
    jobs, straight = list[_Job](), list[_Job]()
    for filling in sorted(fillings, key=lambda filling: -filling.nbytes):
        for copy in filling.copies:
            if (found := pieces(copy, source)) is None:
                jobs.append(_Job(copy, None, copy.nbytes))
                filling.left += 1
            else:
                straight += [_Job(copy, piece, piece.nbytes) for piece in found]
                filling.left += len(found)
    return jobs + sorted(straight, key=lambda job: (job.piece.path, job.piece.start))  # type: ignore[union-attr]


def _in_threads(jobs: Sequence[_Job], threads: int, run: Any) -> None:
    """All jobs, in order, each in the next thread that is free; the first error ends the rest."""
    at, lock, failed = iter(jobs), threading.Lock(), threading.Event()

    def work() -> None:
        while not failed.is_set():
            with lock:
                job = next(at, None)
            if job is None:
                return
            try:
                run(job)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(threads, "weights") as pool:
        futures = [pool.submit(work) for _ in range(min(threads, len(jobs)))]
        try:
            for future in futures:
                future.result()
        finally:
            failed.set()  # also if this thread was interrupted: nobody begins another job


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
