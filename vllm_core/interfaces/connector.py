"""The contract of KV connectors: cache pages from and to a place outside the engine.

Two halves of one target. The scheduler's half knows requests and blocks; the worker's half
moves the bytes. What the first decides reaches the second with the step, as bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.cache import CachePlan
from vllm_core.interfaces.queries import ConnectorQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class Transfer:
    """Pages of one request in one group; ``hashes[i]`` identifies the tokens up to block i's end."""

    request_id: str
    group: int
    pages: Sequence[int]
    hashes: Sequence[bytes]


@attrs.frozen(kw_only=True)
class Transferred:
    """What a worker reports after a step."""

    loaded: frozenset[str] = frozenset()  # requests whose loads are complete
    stored: frozenset[str] = frozenset()  # requests whose pages may be freed
    failed: Mapping[str, str] = attrs.field(factory=dict)  # request: reason


class SchedulerSide(Protocol):
    """Beside the scheduler. Calls return at once; a slow lookup answers None and is asked again."""

    def matched(self, request_id: str, hashes: Sequence[bytes], computed: int) -> int | None:
        """Blocks after the first ``computed`` that can be loaded; None: not known yet."""

    def load(self, transfers: Sequence[Transfer]) -> None:
        """Pages were reserved: fill them before the request runs."""

    def finished(self, request_id: str, transfers: Sequence[Transfer]) -> bool:
        """The request ended. True: its pages stay until a worker reports them stored."""

    def message(self) -> bytes:
        """For the workers, with the next step; b"" for nothing. A fixed schema, no pickle."""

    def close(self) -> None: ...


class WorkerSide(Protocol):
    """On each worker, once the caches exist."""

    def begin(self, message: bytes) -> None:
        """A step starts: begin the transfers it asks for, without waiting for them."""

    def layer_ready(self, name: str) -> None:
        """Cache ``name`` is about to be read: wait (on the device's stream) until it is loaded."""

    def layer_written(self, name: str) -> None:
        """Cache ``name`` was written in this step: it may be stored."""

    def end(self) -> Transferred:
        """The step was launched: what has completed since the last call."""

    def close(self) -> None: ...


class Connector(Protocol):
    """The target: a class that makes either half."""

    def __init__(self, query: ConnectorQuery) -> None: ...

    def scheduler(self, caches: CachePlan) -> SchedulerSide: ...

    def worker(self, caches: CachePlan, pages: Sequence[Tensor], rank: int) -> WorkerSide:
        """``pages[j]`` uint8 [num_pages, page_bytes]: page tensor j of the plan."""
