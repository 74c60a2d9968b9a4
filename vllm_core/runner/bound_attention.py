"""The attention of one layer once the engine is planned: its backend, its pages, its part of a step's metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vllm_core.interfaces.attention import AttentionBackend, AttentionStep
from vllm_core.interfaces.batch import Batch


class PagedAttention:
    """`interfaces.attention.BoundAttention` of one layer. Callable once pages are attached."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.group = -1
        self.layout = ""  # of its pages
        self.part: int | None = None  # which of the group's backends, if it has several
        self.backend: AttentionBackend | None = None
        self.pages: tuple[Tensor, ...] = ()
        self.write: Callable[..., Any] = self._unattached
        self.attend: Callable[..., Tensor] = self._unattached

    def __call__(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, batch: Batch, sinks: Tensor | None = None
    ) -> Tensor:
        step, metadata = self.of(batch)
        if k is not None:
            self.write(k, v, self.pages, step)
        return self.attend(q, self.pages, step, metadata, sinks)

    def of(self, batch: Batch) -> tuple[AttentionStep, Any]:
        metadata = batch.metadata[self.group]
        return batch.attention[self.group], metadata if self.part is None else metadata[self.part]

    def attach(self, pages: tuple[Tensor, ...]) -> None:
        self.pages = pages
        if self.backend is not None:
            self.write, self.attend = self.backend.write, self.backend.attend

    def _unattached(self, *args: Any) -> Any:
        raise RuntimeError(f"{self.path}: attention was called before EnginePlan.bind_caches gave it pages")

    def run_dry(self) -> None:
        """On the meta device: results of the right shape, nothing cached."""
        v_dim = self.settings["v_dim"]
        self.write = lambda *args: None
        self.attend = lambda q, *args: q.new_empty(*q.shape[:-1], v_dim)


class BackendSet:
    """Backends of layers that share a block table and differ in settings; their metadata is a list."""

    def __init__(self, backends: list[AttentionBackend]) -> None:
        self.backends = backends

    def begin_step(self, step: AttentionStep) -> list[Any]:
        return [backend.begin_step(step) for backend in self.backends]
