"""How much an engine has to do, as a front knows it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vllm_core.engine.messages import NewRequest

__all__ = ["GUESS", "Burden", "Load", "burden_of"]

GUESS = 256  # output tokens expected of a sample that may have more


@attrs.define(slots=True)
class Burden:
    """Of one request, as it was taken on; ``begun`` gives back what its prompt was."""

    requests: int  # samples
    prompt: int  # tokens
    output: int  # tokens, of all its samples, as far as can be told

    @property
    def tokens(self) -> int:
        return self.prompt + self.output


def burden_of(requests: Sequence[NewRequest]) -> Burden:
    """Samples of one prompt, which is computed once."""
    output = sum(min(GUESS, max(1, new.max_total - len(new.token_ids))) for new in requests)
    return Burden(len(requests), len(requests[0].token_ids) if requests else 0, output)


@attrs.define
class Load:
    """``rows``: requests that the engine runs at the same time."""

    rows: int
    requests: int = 0  # of this front
    tokens: int = 0  # that those are still to be computed or written
    others: int = 0  # requests of other fronts, as the engine told last

    @property
    def held(self) -> int:
        return self.requests + self.others

    @property
    def waiting(self) -> int:
        """Requests beyond those that can run."""
        return max(0, self.held - self.rows)

    @property
    def order(self) -> tuple[int, int]:
        """The smaller, the sooner a request is done here: waiting requests first, then tokens."""
        return self.waiting, self.tokens + self.others * GUESS

    def add(self, burden: Burden) -> None:
        self.requests += burden.requests
        self.tokens += burden.tokens

    def begun(self, burden: Burden) -> None:
        """Its prompt has been computed."""
        self.tokens -= burden.prompt
        burden.prompt = 0

    def remove(self, burden: Burden) -> None:
        self.requests -= burden.requests
        self.tokens -= burden.tokens
