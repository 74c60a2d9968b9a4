"""When ranks of a model fail, one is the cause and others only notice: which one, in a sentence. No torch."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from vllm_core.distributed.layout import Layout
from vllm_core.engine.pids import is_stopped

__all__ = ["Place", "Report", "blame"]


@attrs.frozen
class Place:
    """Where a rank runs."""

    host: str
    device: str
    pid: int
    here: bool = True  # on this host, where its process can be looked at

    def __str__(self) -> str:
        return f"on {self.host}, {self.device} (pid {self.pid})"


@attrs.frozen
class Report:
    """What a rank has said, or how its process ended without a word."""

    error: str = ""
    kind: str = ""
    waited: bool = False  # in vain, for others
    step: int = -1
    ended: str = ""


def blame(layout: Layout, reports: Mapping[int, Report], places: Mapping[int, Place]) -> str:
    """Names rank, host, device and cause.

    A process that was ended comes first, then an error of a rank's own. If all that there is are ranks that waited
    in vain, those who did not even say so are the ones that hang.
    """
    names = {rank: f"{layout.title(rank)} {place}" for rank, place in places.items()}
    heard = sorted(reports.items())
    for rank, said in heard:
        if said.ended:
            return f"{names[rank]} {said.ended}"
    for rank, said in heard:
        if not said.waited:
            return f"{names[rank]}{_step(said)}: {said.kind}: {said.error}"
    first, said = heard[0]
    silent = [rank for rank in places if rank not in reports]
    if not silent:
        return f"{names[first]}{_step(said)}: {said.error}"
    found = "; ".join(f"{names[rank]} {_state(places[rank])}" for rank in silent)
    return f"{found}: {layout.title(first)} waited for it in vain{_step(said)} ({said.error})"


def _state(place: Place) -> str:
    return "is stopped by a signal" if place.here and is_stopped(place.pid) else "hangs"


def _step(said: Report) -> str:
    return f" in step {said.step}" if said.step >= 0 else ""
