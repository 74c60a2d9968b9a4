"""A step from its scheduling to its retirement."""

from __future__ import annotations

import time

import attrs

from vllm_core.engine.cache.sequence import Growth
from vllm_core.engine.request import Request
from vllm_core.interfaces.steps import PageCopy, PageGrowth, RowInit, StepPlan

__all__ = ["Draft", "Flight"]


@attrs.frozen
class Flight:
    """A launched step: ``requests[i]`` runs in ``plan.rows[i]``."""

    plan: StepPlan
    requests: list[Request]
    prompt_tokens: int = 0  # of all its tokens, those that no step has sampled just now
    launched: float = attrs.field(factory=time.monotonic)  # seconds


class Draft:
    """A step while it is scheduled. Parallel lists, as in ``StepPlan``."""

    __slots__ = (
        "budget",
        "drafts",
        "ends",
        "growths",
        "inits",
        "prompt_tokens",
        "requests",
        "rows",
        "samples",
        "tokens",
    )

    def __init__(self, budget: int) -> None:
        self.budget = budget  # tokens left
        self.prompt_tokens = 0
        self.inits: list[RowInit] = []
        self.growths: list[PageGrowth] = []
        self.requests: list[Request] = []
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.drafts: list[int] = []
        self.samples: list[bool] = []
        self.ends: list[int] = []

    def grow(self, row: int, growths: list[Growth]) -> None:
        self.growths += [PageGrowth(row, group, first, pages) for group, first, pages in growths]

    def add(self, request: Request, tokens: int, drafts: int, samples: bool) -> None:
        """Schedule the request's next ``tokens`` tokens; the last ``drafts`` of them are drafts."""
        end = request.bound + tokens
        if request.bound < request.prefill_end:
            self.prompt_tokens += tokens
        self.requests.append(request)
        self.rows.append(request.row)
        self.tokens.append(tokens)
        self.drafts.append(drafts)
        self.samples.append(samples)
        self.ends.append(end)
        self.budget -= tokens
        request.bound = end
        request.in_flight += 1

    def flight(self, step: int, copies: list[PageCopy]) -> Flight:
        plan = StepPlan(
            step=step,
            inits=self.inits,
            growths=self.growths,
            copies=copies,
            rows=self.rows,
            num_tokens=self.tokens,
            num_drafts=self.drafts,
            samples=self.samples,
            kv_bounds=self.ends,
        )
        return Flight(plan, self.requests, self.prompt_tokens)
