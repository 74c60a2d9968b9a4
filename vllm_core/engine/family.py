"""The samples of one prompt (n > 1): one computes the prompt, the others begin where it ends."""

from __future__ import annotations

import attrs

from vllm_core.engine.request import Request, State

__all__ = ["Family"]


@attrs.define(slots=True, eq=False)
class Family:
    """Requests with the same prompt, salt and keys, each with noise of its own.

    While one of them computes the prompt, the others are ``held``: not yet in the queue. If that
    one ends before, another takes its place.
    """

    members: list[Request]  # all that have not finished
    held: list[Request] = attrs.field(factory=list)  # of those, the ones that wait for the prompt
    computed: bool = False  # the prompt, at least once

    @classmethod
    def of(cls, request: Request) -> Family:
        """The request's family; it founds one if it has none."""
        if request.family is None:
            request.family = cls([request], computed=request.num_output > 0)
        return request.family

    def add(self, request: Request) -> bool:
        """Whether the new member may queue at once."""
        request.family = self
        self.members.append(request)
        if not self.computed:
            self.held.append(request)
        return self.computed

    def leave(self, request: Request) -> bool:
        """A member has finished. Whether it was held."""
        self.members.remove(request)
        held = request in self.held
        if held:
            self.held.remove(request)
        return held

    def let_go(self) -> list[Request]:
        """Who may queue now: all if the prompt is there, one if nobody computes it."""
        if self.computed:
            free, self.held = self.held, []
        else:
            alone = len(self.members) == len(self.held)
            free, self.held = (self.held[:1], self.held[1:]) if alone else ([], self.held)
        return free

    def parent(self, request: Request) -> Request | None:
        """The other member whose cache holds the most: what it has of the prompt can be shared."""
        running = [member for member in self.members if member.state is State.RUNNING and member is not request]
        return max(running, key=lambda member: member.cache.computed, default=None)
