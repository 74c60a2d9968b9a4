"""Whose turn it is, where a step passes through several pipeline stages: the rows that decode take turns.

A row that samples can run again in the first stage when the last one has seen it. So the rows that decode are divided
over as many steps as there are stages, and each waits for its turn; prompts, whose tokens are all known, do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm_core.engine.request import Request

__all__ = ["MicroBatches", "steps_in_flight"]


def steps_in_flight(stages: int) -> int:
    """One in each stage, and one that begins when the first of them is free."""
    return stages + 1


class MicroBatches:
    def __init__(self, stages: int) -> None:
        self.stages = stages

    def turn(self, running: Sequence[Request], step: int, oldest: int) -> list[Request]:
        """Those of the running requests that may be in this step, in their order.

        oldest   the oldest step in flight: what was sampled before is known
        """
        if self.stages == 1:
            return list(running)
        room = self._share(running)
        chosen = []
        for request in running:
            if request.bound >= request.prefill_end:
                waits = oldest <= request.sampled_in and step - request.sampled_in < self.stages
                if waits or room == 0:
                    continue
                room -= 1
            chosen.append(request)
        return chosen

    def ahead(self, running: Sequence[Request], flights: int) -> list[Request]:
        """Who runs if nobody's turn it is: with one step in flight the host prepares the next one meanwhile.

        The first stage then waits for what the last one samples, and nobody else wants it.
        """
        if self.stages == 1 or flights > 1:
            return []
        return [request for request in running if request.bound >= request.prefill_end][: self._share(running)]

    def launched(self, step: int, requests: Sequence[Request], samples: Sequence[bool]) -> None:
        if self.stages > 1:
            for request, sampled in zip(requests, samples, strict=True):
                if sampled:
                    request.sampled_in = step

    def _share(self, running: Sequence[Request]) -> int:
        """Decoding rows of a step."""
        return -(-sum(request.bound >= request.prefill_end for request in running) // self.stages)
