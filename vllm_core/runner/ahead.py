"""Kernels made side by side before layers ask for them, because compilers leave the interpreter free."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from vllm_core.interfaces.queries import OpQuery
from vllm_core.ops.table import LAYER_OPS

__all__ = ["Ahead", "op_key"]

THREADS = 8


def op_key(query: OpQuery) -> Hashable:
    """Equal for queries that one kernel serves, in one engine."""
    return (query.op, *sorted(query.shape.items()))


class Ahead:
    """``begin(key, make)`` starts making something, ``take(key, make)`` gives it, or makes it now if nobody began.

    device   of the kernels; on a CPU nothing is begun: its compilers have run when packages were installed
    What fails fails in ``take``.
    """

    def __init__(self, device: torch.device) -> None:
        self._threads = None
        if device.type == "cuda":
            self._threads = ThreadPoolExecutor(THREADS, "kernels", initializer=_enter, initargs=(device,))
        self._begun: dict[Hashable, Future[Any]] = {}

    def begin(self, key: Hashable, make: Callable[[], Any]) -> None:
        if self._threads is not None and key not in self._begun:
            self._begun[key] = self._threads.submit(make)

    def begin_ops(self, queries: Iterable[OpQuery], choose: Any) -> None:
        """Kernels of ops; those of layers are made from the layer, but may compile before (`FusedLayer.prepare`)."""
        for query in queries:

            def make(query: OpQuery = query) -> Any:
                kernel = choose.choose("op_kernel", query).load()
                if query.op in LAYER_OPS:
                    prepare = getattr(kernel, "prepare", None)
                    return prepare(query) if prepare is not None else None
                return kernel(query)

            self.begin(op_key(query), make)

    def take(self, key: Hashable, make: Callable[[], Any]) -> Any:
        begun = self._begun.pop(key, None)
        return make() if begun is None else begun.result()

    def close(self) -> None:
        """Whatever nobody asked for is dropped."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _enter(device: torch.device) -> None:
    """A new thread has no device and no context yet."""
    torch.cuda.set_device(device)
    torch.cuda.synchronize(device)
