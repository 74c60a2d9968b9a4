"""One rank at work, wherever its process is: messages in, messages out, as `distributed.messages` has them."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import distributed as dist

from vllm_core.distributed.messages import Failed, Result, Start, Started, Step, decode_down
from vllm_core.distributed.share import build_share
from vllm_core.interfaces.collective import PeerLost
from vllm_core.plugins.whose import whose_error
from vllm_core.runner.inprocess import InProcessExecutor

__all__ = ["Rank", "failed", "open_store"]


class Rank:
    """``load`` once; then ``launch`` in one thread, in the order of steps, and ``take`` in another.

    store   where the ranks meet, if this process has opened it; None: as ``start`` says
    """

    def __init__(self, start: Start, store: dist.Store | None = None) -> None:
        self._start, self._store = start, store
        self.owners: Mapping[str, str] = {}
        self._launched: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._speaks = False
        self._executor: InProcessExecutor | None = None

    def load(self) -> Started:
        """Returns when steps can be launched."""
        share = build_share(self._start, self._store)
        self.owners = share.owners
        self._executor = executor = InProcessExecutor(share)
        capacity = executor.start()
        share.open_grammars(capacity.vocab_size)
        self._speaks = share.speaks
        return Started(
            vocab_size=capacity.vocab_size,
            lookahead=capacity.lookahead,
            memory=capacity.memory,
            timings=capacity.timings,
        )

    def launch(self, message: bytes) -> Failed | None:
        """A `Step`, encoded. What is returned is the rank's last word."""
        plan = decode_down(message)
        assert isinstance(plan, Step)
        assert self._executor is not None, "load comes first"
        try:
            self._launched.put((plan.plan.step, self._executor.launch(plan.plan)))
        except Exception as error:  # the device's memory was too small, say: others wait for this rank by now
            return failed(error, plan.plan.step, self.owners)
        return None

    def take(self) -> Result | Failed | None:
        """Wait for the oldest step that was launched. None: this rank does not speak; a `Failed` is its last word."""
        step, pending = self._launched.get()
        try:
            result = pending.result()
        except Exception as error:
            return failed(error, step, self.owners)
        return Result(result) if self._speaks else None

    def stop(self) -> None:
        """End what ``load`` began, for a rank whose process goes on."""
        if self._executor is not None:
            self._executor.stop()


def open_store(host: str, world: int) -> tuple[dist.TCPStore, str]:
    """Where ranks of several hosts meet, kept by the first of them, and its name for `Start`.

    It asks nobody who they are: ``host`` is an address that only the ranks' hosts can reach.
    """
    store = dist.TCPStore(host, 0, world, is_master=True, wait_for_workers=False)
    return store, f"tcp://{host}:{store.port}"


def failed(error: BaseException, step: int = -1, owners: Mapping[str, str] = MappingProxyType({})) -> Failed:
    """With the first cause: what a step raised is wrapped. ``owners`` (`plugins.whose`) tell whose fault it was."""
    owner = whose_error(error, owners)
    cause: BaseException = error
    while not isinstance(cause, PeerLost) and cause.__cause__ is not None:
        cause = cause.__cause__
    reason = (str(cause) or repr(cause)) + (f" (in {owner})" if owner else "")
    return Failed(reason, type(cause).__name__, isinstance(cause, PeerLost), step)
