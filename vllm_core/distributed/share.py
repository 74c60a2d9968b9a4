"""One rank's share of a model, built where it runs."""

from __future__ import annotations

from typing import Any

from torch import distributed as dist

from vllm_core.distributed.groups import join_groups, meet
from vllm_core.distributed.messages import Start
from vllm_core.engine.build import open_text
from vllm_core.engine.recipe import settings_of
from vllm_core.engine.resolve import Part, Resolved, resolve
from vllm_core.interfaces.executor import Capacity
from vllm_core.plugins.errors import LockMismatch
from vllm_core.plugins.whose import owners_of
from vllm_core.runner.runner import Runner

__all__ = ["Share", "build_share"]

TCP = "tcp://"
COMPILE_SECONDS = 60.0
"""For a grammar, in a rank: the engine has compiled it within the limit, and ranks must not differ in the result."""


class Share:
    """`runner.inprocess.Build` of one rank."""

    def __init__(self, resolved: Resolved, start: Start, store: dist.Store | None = None) -> None:
        self._resolved, self._start, self._store = resolved, start, store
        self.layout = resolved.build.model.layout
        self.speaks = start.rank == self.layout.speaker
        self.owners = owners_of(resolved.lock)

    def make_runner(self) -> tuple[Runner, Capacity]:
        build, start = self._resolved.build, self._start
        store = self._store or _meeting(start.meeting, self.layout.world)
        timeout = self._resolved.settings.collective_timeout
        kind, ordered = build.torch_device.type, build.model.batch_invariant
        meet(store, "begun", start.rank, self.layout.world)
        groups = join_groups(self.layout, start.rank, store, kind, timeout, start.address, build.collectives, ordered)
        return build.make_runner(groups, lambda: meet(store, "loaded", start.rank, self.layout.world))

    def open_grammars(self, vocab_size: int) -> None:
        grammars: Any = self._resolved.build.grammars
        grammars.allow(COMPILE_SECONDS)
        grammars.backends.opens(lambda: open_text(self._resolved), vocab_size)


def build_share(start: Start, store: dist.Store | None = None) -> Share:
    """Everything decided, nothing loaded. ``LockMismatch`` if the choices made here are not the engine's."""
    resolved = resolve(settings_of(start.settings), Part(start.local_rank, start.num_pages))
    if resolved.lock.digest != start.digest:
        raise LockMismatch(
            "a rank's process made other choices than the engine.",
            why=f"lock {resolved.lock.digest[:12]} here, {start.digest[:12]} there: a package, a plugin or a "
            "configuration file was changed meanwhile",
            known=f"here they are of {resolved.lock.owners}",
            instead="start again",
        )
    return Share(resolved, start, store)


def _meeting(place: str, world: int) -> dist.Store:
    if not place.startswith(TCP):
        return dist.FileStore(place, world)
    host, _, port = place.removeprefix(TCP).rpartition(":")
    return dist.TCPStore(host, int(port), world, is_master=False, wait_for_workers=False)
