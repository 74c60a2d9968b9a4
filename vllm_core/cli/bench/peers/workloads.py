"""Six workloads that stand for what an engine is used for, the same token ids for everyone. Standard library only.

    w1  mixed            256 requests of 100 to 1,024 tokens in and as many out, temperature 0.6
    w2  one stream       128 in, 256 out, greedy: tokens a second after the first
    w3  long prompt      8,192 in, 1 out: seconds
    w4  batch            256 requests of 128 in, 256 out, greedy
    w5  shared prefix    128 requests that begin with the same 4,096 tokens, 64 more in, 32 out: requests a second
    w6  long contexts    32 requests at 7,000 tokens, 256 out: tokens a second, prompts in the cache

A run differs from every other in its token ids, so that no prefix is found that a workload does not mean. Rates
of decoding are differences of two runs that differ in their outputs only.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

FIRST, LAST = 100, 10_000  # ids are drawn from, where the vocabulary has so many

Generate = Callable[[list[list[int]], list[int], float], int]
"""(prompts, tokens out of each, temperature) -> tokens that came out. Every output is as long as asked for."""


class Workloads:
    """Runs them with ``generate``. ``scale`` multiplies lengths and numbers of requests, ``clock`` tells seconds."""

    def __init__(
        self,
        generate: Generate,
        vocab_size: int,
        scale: float = 1.0,
        seed: int = 0,
        tick: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._generate, self._scale, self._tick = generate, scale, tick or (lambda: None)
        self._clock = clock
        self._draw = random.Random(seed)
        self._ids = (FIRST if vocab_size > 2 * FIRST else 0, min(LAST, vocab_size - 1))

    def run(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The named ones, in their order: value, unit, and what it was made of."""
        self._seconds([self._prompt(64) for _ in range(4)], [self._size(16)] * 4)
        found = {}
        for name, measure in ALL.items():
            if name in names:
                found[name] = measure(self)
                self._tick()
        return found

    def mixed(self) -> dict[str, Any]:
        rates = []
        for _ in range(2):
            number = self._size(256)
            prompts = [self._prompt(self._draw.randint(100, 1024)) for _ in range(number)]
            lens = [self._size(self._draw.randint(100, 1024)) for _ in range(number)]
            rates.append(sum(lens) / self._seconds(prompts, lens, 0.6))
        return _figure(max(rates), "output tokens/s", rates, requests=number)

    def one_stream(self) -> dict[str, Any]:
        length, rates = self._size(257), []
        for _ in range(3):
            one = self._seconds([self._prompt(128)], [1])
            rates.append((length - 1) / max(self._seconds([self._prompt(128)], [length]) - one, 1e-9))
        return _figure(statistics.median(rates), "tokens/s", rates, output_len=length)

    def long_prompt(self) -> dict[str, Any]:
        seconds = [self._seconds([self._prompt(8192)], [1]) for _ in range(4)][1:]
        return _figure(statistics.median(seconds), "s", seconds, input_len=self._size(8192))

    def batch(self) -> dict[str, Any]:
        number, length = self._size(256), self._size(256)
        rates = []
        for _ in range(2):
            prompts = [self._prompt(128) for _ in range(number)]
            rates.append(number * length / self._seconds(prompts, [length] * number))
        return _figure(max(rates), "output tokens/s", rates, requests=number, output_len=length)

    def shared_prefix(self) -> dict[str, Any]:
        prefix, number, length = self._prompt(4096), self._size(128), self._size(32)
        self._seconds([prefix + self._prompt(64)], [1])
        seconds = self._seconds([prefix + self._prompt(64) for _ in range(number)], [length] * number)
        return _figure(number / seconds, "requests/s", [number / seconds], requests=number, prefix_len=len(prefix))

    def long_contexts(self) -> dict[str, Any]:
        number, length = self._size(32), self._size(257)
        prompts = [self._prompt(7000) for _ in range(number)]
        self._seconds(prompts, [1] * number)  # from here on their prefixes are in the cache
        one, full = (self._seconds(prompts, [n] * number) for n in (1, length))
        rate = number * (length - 1) / max(full - one, 1e-9)
        return _figure(rate, "tokens/s", [rate], requests=number, input_len=len(prompts[0]), seconds=[one, full])

    def _size(self, number: int) -> int:
        return max(2 if number > 1 else 1, round(number * self._scale))

    def _prompt(self, length: int) -> list[int]:
        return [self._draw.randint(*self._ids) for _ in range(self._size(length))]

    def _seconds(self, prompts: list[list[int]], lens: list[int], temperature: float = 0.0) -> float:
        start = self._clock()
        got = self._generate(prompts, lens, temperature)
        seconds = self._clock() - start
        if got != sum(lens):
            raise RuntimeError(f"{got} tokens came out instead of {sum(lens)}")
        return seconds


ALL: dict[str, Callable[[Workloads], dict[str, Any]]] = {
    "w1": Workloads.mixed,
    "w2": Workloads.one_stream,
    "w3": Workloads.long_prompt,
    "w4": Workloads.batch,
    "w5": Workloads.shared_prefix,
    "w6": Workloads.long_contexts,
}
TITLES = {
    "w1": "mixed lengths", "w2": "one stream", "w3": "first token of a long prompt", "w4": "batch",
    "w5": "shared prefix", "w6": "long contexts",
}  # fmt: skip
LONGEST = {"w1": 2048, "w2": 385, "w3": 8193, "w4": 384, "w5": 4192, "w6": 7257}
"""Tokens of a workload's longest request, at scale 1."""


def _figure(value: float, unit: str, runs: list[float], **facts: Any) -> dict[str, Any]:
    return {"value": value, "unit": unit, "runs": runs, **facts}
