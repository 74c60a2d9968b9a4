"""Prompts of random tokens: all different, with a common beginning, or of few beginnings."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence

from vllm_plugin_server.bench.ask import Sample
from vllm_plugin_server.bench.tokens import RawTokens, Tokens, text_of_length

__all__ = ["length_range", "prefix_repetition", "random_prompts"]

AT_ONCE = 32  # prompts that are made, if the server has to be asked


def length_range(length: int, ratio: float) -> tuple[int, int]:
    """Lengths from ``length * (1 - ratio)`` to ``length * (1 + ratio)``, at least 1."""
    if not 0 <= ratio < 1:
        raise ValueError(f"a range ratio must be at least 0 and below 1, not {ratio:g}")
    return max(1, math.floor(length * (1 - ratio))), max(1, math.ceil(length * (1 + ratio)))


async def random_prompts(
    tokens: Tokens,
    chance: random.Random,
    *,
    count: int,
    input_len: int,
    output_len: int,
    range_ratio: float = 0.0,
    prefix_len: int = 0,
) -> list[Sample]:
    """``prefix_len`` tokens that are the same, then others; lengths uniform in their ranges."""
    inputs, outputs = length_range(input_len, range_ratio), length_range(output_len, range_ratio)
    prefix = chance.choices(tokens.ids, k=prefix_len)
    wanted = [(prefix + _draw(tokens, chance, *inputs), chance.randint(*outputs)) for _ in range(count)]
    return await _samples(tokens, wanted, chance)


async def prefix_repetition(
    tokens: Tokens,
    chance: random.Random,
    *,
    count: int,
    prefix_len: int,
    suffix_len: int,
    num_prefixes: int,
    output_len: int,
) -> list[Sample]:
    """Few beginnings, each of many prompts, shuffled: what a prefix cache is for."""
    if not 1 <= num_prefixes <= count:
        raise ValueError(f"{num_prefixes} prefixes for {count} prompts: from 1 to as many as there are prompts")
    prefixes = [chance.choices(tokens.ids, k=prefix_len) for _ in range(num_prefixes)]
    wanted = [(prefixes[i % num_prefixes] + _draw(tokens, chance, suffix_len, suffix_len), output_len)
              for i in range(count)]  # fmt: skip
    chance.shuffle(wanted)
    return await _samples(tokens, wanted, chance)


def _draw(tokens: Tokens, chance: random.Random, low: int, high: int) -> list[int]:
    return chance.choices(tokens.ids, k=chance.randint(low, high))


async def _samples(tokens: Tokens, wanted: Sequence[tuple[list[int], int]], chance: random.Random) -> list[Sample]:
    if isinstance(tokens, RawTokens):
        return [Sample(ids, len(ids), output_len) for ids, output_len in wanted]

    async def one(ids: list[int], output_len: int, seed: int) -> Sample:
        text, length = await text_of_length(tokens, ids, random.Random(seed))
        return Sample(text, length, output_len)

    seeds = [chance.getrandbits(32) for _ in wanted]
    return await _gather([lambda w=w, s=s: one(*w, s) for w, s in zip(wanted, seeds, strict=True)])


async def _gather(calls: Sequence[Callable[[], Awaitable[Sample]]]) -> list[Sample]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Callable[[], Awaitable[Sample]]) -> Sample:
        async with gate:
            return await call()

    return list(await asyncio.gather(*map(one, calls)))
