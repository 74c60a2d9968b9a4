"""Log-probabilities on the host: from a step's arrays to each request, and to what its caller reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs
import numpy as np

from vllm_core.engine.request import Request, State
from vllm_core.interfaces.steps import LogprobLines, StepResult

__all__ = ["Line", "Logprob", "ReadableLogprobs", "book"]


@attrs.frozen(slots=True)
class Logprob:
    """Of one token at one position. Names are vLLM's."""

    logprob: float  # natural logarithm
    rank: int | None = None  # 1: the likeliest
    decoded_token: str | None = None


class Line(NamedTuple):
    """A position as the step reported it: the token that came, then the likeliest in falling order."""

    token_ids: np.ndarray  # int32 [1 + k]
    logprobs: np.ndarray  # float32 [1 + k]
    rank: int  # of the token that came


def book(result: StepResult, requests: Sequence[Request]) -> None:
    """Give each request of a step what the step reported of it; ``requests[i]`` ran in ``plan.rows[i]``.

    Called before the step's tokens are taken: what a request does after its end is dropped.
    """
    for lines in result.logprobs:
        at = 0
        for i, count in zip(lines.rows, lines.counts, strict=True):
            if requests[i].state is not State.FINISHED:
                new = [_line(lines, j) for j in range(at, at + count) if lines.token_ids[j, 0] >= 0]
                requests[i].logprobs += new
            at += count
    for lines in result.prompt_logprobs:
        at = 0
        for i, count, first in zip(lines.rows, lines.counts, lines.first, strict=True):
            known = requests[i].prompt_logprobs
            if first > len(known) + 1:
                raise RuntimeError(f"request {requests[i].request_id}: prompt positions before {first} went unreported")
            # Positions that were computed again after a preemption are known.
            known += [_line(lines, j) for j in range(at + len(known) + 1 - first, at + count)]
            at += count


def _line(lines: LogprobLines, j: int) -> Line:
    # Copies: a view would keep the numbers of all rows of the step alive.
    return Line(lines.token_ids[j].copy(), lines.logprobs[j].copy(), int(lines.ranks[j]))


class ReadableLogprobs:
    """One request's log-probabilities as its caller reads them; each is made once.

    decode   a token's text; None: without texts
    """

    def __init__(self, decode: Callable[[int], str] | None) -> None:
        self._decode = decode
        self._sampled: list[dict[int, Logprob]] = []
        self._prompt: list[dict[int, Logprob] | None] = [None]  # nothing comes before the first token
        self._total = 0.0

    def sampled(self, request: Request) -> tuple[list[dict[int, Logprob]] | None, float | None]:
        """Of the output tokens so far, and the sum over them; None if they were not asked for."""
        if request.params.logprobs is None:
            return None, None
        for line in request.logprobs[len(self._sampled) : request.num_output]:
            self._sampled.append(_as_dict(line, self._decode))
            self._total += float(line.logprobs[0])
        return self._sampled[:], self._total

    def prompt(self, request: Request) -> list[dict[int, Logprob] | None] | None:
        """Of the prompt's tokens as far as they are computed; None if they were not asked for."""
        if request.params.prompt_logprobs is None:
            return None
        for line in request.prompt_logprobs[len(self._prompt) - 1 :]:
            self._prompt.append(_as_dict(line, self._decode))
        return self._prompt[:]


def _as_dict(line: Line, decode: Callable[[int], str] | None) -> dict[int, Logprob]:
    """The token that came, then the likeliest."""
    ids, values = line.token_ids.tolist(), line.logprobs.tolist()
    ranks = [line.rank, *range(1, len(ids))]
    return {
        token: Logprob(value, rank, decode(token) if decode else None)
        for token, value, rank in zip(ids, values, ranks, strict=True)
    }
