"""Log-probabilities on the host: from a step's arrays to each request, and to what its caller reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from vllm_core.engine.messages import Line
from vllm_core.engine.request import Request, State
from vllm_core.interfaces.steps import LogprobLines, StepResult

__all__ = ["Logprob", "ReadableLogprobs", "book"]


@attrs.frozen(slots=True)
class Logprob:
    """Of one token at one position. Names are vLLM's."""

    logprob: float  # natural logarithm
    rank: int | None = None  # 1: the likeliest
    decoded_token: str | None = None


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
    return Line(lines.token_ids[j].tolist(), lines.logprobs[j].tolist(), int(lines.ranks[j]))


class ReadableLogprobs:
    """One request's log-probabilities as its caller reads them; each is made once.

    sampled, prompt   whether those of output tokens, and of the prompt's, were asked for
    decode            a token's text; None: without texts
    """

    def __init__(self, sampled: bool, prompt: bool, decode: Callable[[int], str] | None) -> None:
        self._decode = decode
        self._sampled: list[dict[int, Logprob]] | None = [] if sampled else None
        self._own: list[float] = []  # of the tokens that came
        # Nothing comes before the first token.
        self._prompt: list[dict[int, Logprob] | None] | None = [None] if prompt else None

    def push(self, sampled: Sequence[Line], prompt: Sequence[Line]) -> None:
        if self._sampled is not None:
            self._sampled += [_as_dict(line, self._decode) for line in sampled]
            self._own += [line.logprobs[0] for line in sampled]
        if self._prompt is not None:
            self._prompt += [_as_dict(line, self._decode) for line in prompt]

    def sampled(self, tokens: int) -> tuple[list[dict[int, Logprob]] | None, float | None]:
        """Of the first ``tokens`` output tokens, and the sum over them; None if they were not asked for."""
        if self._sampled is None:
            return None, None
        return self._sampled[:tokens], sum(self._own[:tokens])

    def prompt(self) -> list[dict[int, Logprob] | None] | None:
        """Of the prompt's tokens as far as they are computed; None if they were not asked for."""
        return None if self._prompt is None else self._prompt[:]


def _as_dict(line: Line, decode: Callable[[int], str] | None) -> dict[int, Logprob]:
    """The token that came, then the likeliest."""
    ranks = [line.rank, *range(1, len(line.token_ids))]
    return {
        token: Logprob(value, rank, decode(token) if decode else None)
        for token, value, rank in zip(line.token_ids, line.logprobs, ranks, strict=True)
    }
