"""The engine's books after a lack of memory broke off a change in them: thrown away, and begun from what is known.

Of a request that is its prompt and the tokens it has got; noise depends on seed and position only, so it goes on as
it would have. Only time is lost, and the cached prefixes.
"""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

from vllm_core.engine.request import NO_ROW, FinishReason, Request, State

if TYPE_CHECKING:
    from vllm_core.engine.core import EngineCore

__all__ = ["begin_again"]

log = logging.getLogger(__name__)

TRIES = 3
PATIENCE = 2  # shortages without a token in between; from then on each ends the request that came last


def begin_again(core: EngineCore, error: MemoryError) -> None:
    """All requests wait again. Raises what a step that is in flight raises, and ``MemoryError`` if there is no way."""
    core.shortages += 1
    log.warning("not enough memory (%s): %d requests are computed again", error or "by Python", len(core.open))
    for left in reversed(range(TRIES)):
        try:
            _begin(core)
            return
        except MemoryError:
            if not left:
                raise
        gc.collect()


def _begin(core: EngineCore) -> None:
    core.loop.abandon()
    core.new_books(core.scheduler.next_step)
    most, core.roster.max_waiting = core.roster.max_waiting, None  # they had been let in
    running = [request for request in core.open.values() if not _is_over(request)]
    if core.shortages > PATIENCE and running:
        running.pop().finish(FinishReason.ERROR, error="not enough memory on the host for what it needs beside others")
    for request in running:
        _forget(request)
    for request in running:
        core.roster.add(request)
    core.ended = [request for request in core.open.values() if request.finished]
    core.roster.max_waiting = most


def _is_over(request: Request) -> bool:
    """Finish it if its last token says so: the end may not have been booked."""
    if not request.finished and request.num_output > request.carried:
        last = request.token_ids[-1]
        if last in request.stop_ids:
            request.finish(FinishReason.STOP, last if last in request.own_stop_ids else None)
        elif len(request.token_ids) >= request.max_total:
            request.finish(FinishReason.LENGTH)
    return request.finished


def _forget(request: Request) -> None:
    """Its place on the device, and what was noted of tokens that were not taken."""
    request.state, request.row, request.cache, request.family = State.WAITING, NO_ROW, None, None
    request.in_flight = request.bound = request.prefill_end = 0
    request.key = ()
    del request.logprobs[max(0, request.num_output - request.carried) :]
