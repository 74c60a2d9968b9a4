"""A mixed load: requests of all kinds, drawn from a seed, and phases in which they arrive."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import attrs

__all__ = ["Mix", "Phase", "Wish"]

FIRST = 100  # ids below are special tokens in most vocabularies
PREFIXES = 6  # beginnings that prompts have in common


@attrs.frozen
class Wish:
    """A request, and how it is handled."""

    prompt: list[int]
    params: Any  # SamplingParams
    stream: bool
    salt: str  # cache_salt
    abort_after: int | None  # engine steps; None: it may end by itself


@attrs.frozen
class Phase:
    """So many requests arrive, one after the other while fewer than ``most`` are in the engine."""

    name: str
    requests: int
    most: int
    at_once: bool = False  # in place of that
    drain: bool = False  # all end before the next phase


class Mix:
    """Draws requests of up to ``longest`` tokens, prompt and output together, and phases for ``rows`` running ones."""

    def __init__(
        self, *, vocab_size: int, longest: int, rows: int, text: bool, max_logprobs: int = 5, seed: int = 0
    ) -> None:
        self._draw = random.Random(seed)
        self._ids = range(FIRST if vocab_size > 2 * FIRST else 0, vocab_size)
        self._longest, self._rows, self._text = longest, rows, text
        self._most_logprobs = 5 if max_logprobs < 0 else min(5, max_logprobs)
        self._prefixes = [self._some(max(1, longest * share // 8)) for share in (1, 1, 2, 2, 3, 4)[:PREFIXES]]

    def phases(self) -> Iterator[Phase]:
        """Quiet ones, busy ones, and bursts of more than may run; now and then all is left to end. Without end."""
        rows = self._rows
        kinds = (
            Phase("quiet", max(2, rows // 2), max(1, rows // 4)),
            Phase("busy", 2 * rows, rows),
            Phase("burst", 2 * rows + rows // 2 + 1, 0, at_once=True),
            Phase("drain", max(2, rows // 2), rows, drain=True),
        )
        while True:
            yield from self._draw.sample(kinds, len(kinds))

    def arrivals(self) -> int:
        """How many come between two steps, if so many may."""
        return self._draw.choice((0, 0, 1, 1, 2, 5))

    def wish(self) -> Wish:
        draw = self._draw
        prompt, room = self._prompt()
        params = self._params(room)
        return Wish(
            prompt=prompt,
            params=params,
            stream=draw.random() < 0.5,
            salt=draw.choice(("", "", "", "a")),
            abort_after=draw.randint(0, 60) if draw.random() < 0.12 else None,
        )

    def _prompt(self) -> tuple[list[int], int]:
        """Ids, and how many tokens may follow."""
        draw, longest = self._draw, self._longest
        kind = draw.random()
        if kind < 0.4:
            prompt = self._some(draw.randint(1, max(1, min(64, longest // 8))))
        elif kind < 0.65:
            prompt = self._some(self._log_uniform(longest // 2))
        elif kind < 0.9:
            prompt = draw.choice(self._prefixes) + self._some(draw.randint(1, max(1, longest // 16)))
        else:  # to the last token of the longest sequence
            prompt = self._some(draw.randint(longest * 3 // 4, longest - 1))
            return prompt, longest - len(prompt)
        return prompt, min(longest - len(prompt), max(1, min(512, longest // 4)))

    def _params(self, room: int) -> Any:
        from vllm_core import SamplingParams

        draw = self._draw
        fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": self._log_uniform(room), "detokenize": self._text}
        fields["ignore_eos"] = draw.random() < 0.8
        if draw.random() < 0.6:
            fields |= {"temperature": draw.uniform(0.2, 1.3), "seed": draw.choice((None, draw.randint(0, 1 << 31)))}
            fields["top_k"] = draw.choice((0, 0, 1, 20, 200))
            fields["top_p"] = draw.choice((1.0, 1.0, 0.95, 0.5))
            fields["min_p"] = draw.choice((0.0, 0.0, 0.05))
            fields["n"] = draw.choice((1, 1, 1, 1, 2, 4))
        if draw.random() < 0.15:
            fields |= {"presence_penalty": draw.uniform(-1, 2), "frequency_penalty": draw.uniform(-1, 2)}
        if draw.random() < 0.1:
            fields["repetition_penalty"] = draw.uniform(0.8, 1.5)
        if draw.random() < 0.1:
            fields["logprobs"] = draw.randint(0, self._most_logprobs)
        if draw.random() < 0.04:
            fields["prompt_logprobs"] = draw.randint(0, self._most_logprobs)
        if draw.random() < 0.05:
            fields["logit_bias"] = {draw.choice(self._ids): draw.uniform(-5, 5) for _ in range(4)}
        if draw.random() < 0.1:
            fields["stop_token_ids"] = tuple(self._some(20))
        if self._text and draw.random() < 0.15:
            fields["stop"] = tuple(draw.sample(("the", "e", ". ", "\n", "zz", "you can"), 2))
        return SamplingParams(**fields)

    def _some(self, count: int) -> list[int]:
        return self._draw.choices(self._ids, k=count)

    def _log_uniform(self, most: int) -> int:
        """1 to ``most``, small ones as often as large ones in powers of two."""
        return max(1, min(most, int(2 ** self._draw.uniform(0, max(most, 1).bit_length()))))
