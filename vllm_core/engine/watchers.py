"""Who wants figures of the engine, in a front."""

from __future__ import annotations

import logging
from collections.abc import Callable
from weakref import WeakMethod

from vllm_core.engine.figures import Figures

__all__ = ["Watchers"]

log = logging.getLogger(__name__)

Watcher = Callable[[Figures], None]


class Watchers:
    """``ask``: a method, told whether the engine should send figures, when that changes. It is not kept alive."""

    def __init__(self, ask: Callable[[bool], None]) -> None:
        self._method = WeakMethod(ask)
        self._all: list[Watcher] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, watcher: Watcher) -> Callable[[], None]:
        """Returns a function that takes it away again."""
        self._all.append(watcher)
        if len(self._all) == 1:
            self._ask(True)
        return lambda: self._remove(watcher)

    def tell(self, figures: Figures) -> None:
        for watcher in self._all[:]:
            try:
                watcher(figures)
            except Exception:
                log.exception("%r failed; it gets no more figures", watcher)
                self._remove(watcher)

    def _ask(self, on: bool) -> None:
        if (ask := self._method()) is not None:
            ask(on)

    def _remove(self, watcher: Watcher) -> None:
        if watcher in self._all:
            self._all.remove(watcher)
            if not self._all:
                self._ask(False)
