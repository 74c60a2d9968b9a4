"""When ranks of a model fail, one is the cause and others only notice: which one, in a sentence. No torch."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from vllm_core.distributed.layout import Layout
from vllm_core.engine.pids import is_stopped

__all__ = ["Report", "blame"]


@attrs.frozen
class Report:
    """What a rank has said, or how its process ended without a word."""

    error: str = ""
    kind: str = ""
    waited: bool = False  # in vain, for others
    step: int = -1
    ended: str = ""


def blame(layout: Layout, reports: Mapping[int, Report], pids: Mapping[int, int], place: str) -> str:
    """Names rank, host, device and cause.

    A process that was ended comes first, then an error of a rank's own. If all that there is are ranks that waited
    in vain, those who did not even say so are the ones that hang.
    """
    for report in ("ended", "own"):
        for rank, said in sorted(reports.items()):
            if report == "ended" and said.ended:
                return f"{layout.title(rank)} on {place} (pid {pids[rank]}) {said.ended}"
            if report == "own" and not said.waited and not said.ended:
                return f"{layout.title(rank)} on {place}{_step(said)}: {said.kind}: {said.error}"
    silent = [rank for rank in pids if rank not in reports]
    waiting = next(iter(sorted(reports)))
    if not silent:
        return f"{layout.title(waiting)} on {place}{_step(reports[waiting])}: {reports[waiting].error}"
    found = "; ".join(
        f"{layout.title(rank)} on {place} (pid {pids[rank]}) "
        + ("is stopped by a signal" if is_stopped(pids[rank]) else "hangs")
        for rank in silent
    )
    return f"{found}: {layout.title(waiting)} waited for it in vain{_step(reports[waiting])} ({reports[waiting].error})"


def _step(said: Report) -> str:
    return f" in step {said.step}" if said.step >= 0 else ""
