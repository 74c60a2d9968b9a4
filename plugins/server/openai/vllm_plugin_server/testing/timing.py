"""R17: how long the refusal of an API key takes tells nothing of the right ones. In this process, over the door's code.

Each question has two kinds of wrong keys, which only somebody who knows the right ones can tell apart. They come in
random order; Welch's t-test says whether their times have one mean. Comparisons that stop at the first difference are
measured in the same way, and must be found.
"""

from __future__ import annotations

import gc
import math
import random
import string
import time
from collections.abc import Callable, Sequence
from statistics import fmean, variance
from typing import Any

import attrs

from vllm_plugin_server.door import Door

__all__ = ["QUESTIONS", "Comparer", "Question", "TimingReport", "stopping", "timing", "welch"]

Comparer = Callable[[Sequence[bytes]], Callable[[bytes], Any]]  # of right keys: what compares a given one with them

LEAST = 0.01  # p: below it the times differ
BATCH = 50  # comparisons that are prepared together
KEPT = 0.9  # of the times; the longest are what else the machine did
SHORT, LONG = 43, 2048  # bytes: of `secrets.token_urlsafe()`, and so long that a prefix takes time
LETTERS = ((string.ascii_letters + string.digits + "-_") * 4).encode()  # for each byte one
OTHERS = bytes(byte ^ 1 for byte in range(256))  # for each byte another


@attrs.frozen
class Question:
    """Of each kind, ``sizes`` are the bytes of the right keys, and ``near`` which of them a wrong key is like."""

    name: str
    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    near: tuple[int | None, int | None]

    def draw(self, chance: random.Random, kind: int) -> tuple[list[bytes], bytes]:
        """Right keys, and a wrong one as long as the first of them: all new, so that no place in memory has a kind."""
        keys = [chance.randbytes(size).translate(LETTERS) for size in self.sizes[kind]]
        size = self.sizes[0][0]
        near = self.near[kind]
        # Near: half of them up to the last byte, which is what guessing byte by byte comes to.
        shared = 0 if near is None else size - 1 if chance.random() < 0.5 else chance.randrange(1, size)
        key = (keys[near or 0] + keys[0] + bytes(size))[:size]
        return keys, key[:shared] + key.translate(OTHERS)[shared:]


@attrs.define
class TimingReport:
    comparisons: int  # for each question
    p: dict[str, list[float]] = attrs.field(factory=dict)  # of each measurement
    nanoseconds: dict[str, tuple[float, float]] = attrs.field(factory=dict)  # mean of each kind
    findings: list[str] = attrs.field(factory=list)

    def as_dict(self) -> dict[str, Any]:
        return attrs.asdict(self)


QUESTIONS = (
    Question("a prefix is right", ((SHORT,) * 3,) * 2, (None, 1)),
    Question("a prefix of a long key is right", ((LONG,),) * 2, (None, 0)),
    Question("the first or the last of several keys is near", ((SHORT,) * 8,) * 2, (0, 7)),
    Question("a key has the right length", ((SHORT,) * 3, (SHORT - 20, SHORT + 1, SHORT + 200)), (None, None)),
)


def door(keys: Sequence[bytes]) -> Callable[[bytes], Any]:
    """The server's."""
    return Door([key.decode("ascii") for key in keys]).known


def stopping(keys: Sequence[bytes]) -> Callable[[bytes], Any]:
    """The fault: byte after byte and key after key, until one differs."""
    return lambda given: any(given == key for key in keys)


def timing(
    comparer: Comparer = door, *, comparisons: int, seed: int, questions: Sequence[Question] = QUESTIONS
) -> TimingReport:
    """A question fails if its times differ twice, the second time with other keys: chance does that once in 10,000."""
    report, chance = TimingReport(comparisons), random.Random(seed)
    for question in questions:
        for _ in range(2):
            times = measure(question, comparer, comparisons, chance)
            p = welch(*times)
            report.p.setdefault(question.name, []).append(p)
            report.nanoseconds[question.name] = (round(fmean(times[0]), 2), round(fmean(times[1]), 2))
            if p > LEAST:
                break
        else:
            report.findings.append(f"{question.name}: the times differ, p = {p:.1e}")
    return report


def measure(question: Question, comparer: Comparer, comparisons: int, chance: random.Random) -> list[list[int]]:
    """Nanoseconds of each kind, without the longest."""
    times: list[list[int]] = [[], []]
    clock, places = time.perf_counter_ns, [bytearray(question.sizes[0][0]) for _ in range(BATCH)]
    gc.disable()
    try:
        for _ in range(comparisons // BATCH):
            drawn = [(kind, *question.draw(chance, kind)) for kind in chance.sample((0, 1) * (BATCH // 2), BATCH)]
            batch = [(kind, comparer(keys), given) for kind, keys, given in drawn]
            del drawn
            chance.shuffle(batch)  # what was made before what, and where in memory it lies, is alike for both kinds
            for place, (_, _, key) in zip(places, batch, strict=True):
                place[:] = key
            for place, (kind, compare, _) in zip(places, batch, strict=True):
                given = bytes(place)
                compare(given)
                begin = clock()
                compare(given)
                times[kind].append(clock() - begin)
    finally:
        gc.enable()
    longest = sorted(times[0] + times[1])[int(KEPT * comparisons) - 1]
    return [[took for took in kind if took <= longest] for kind in times]


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """p of the two-sided test. Of thousands of times each, so that t is as good as normal."""
    spread = variance(first) / len(first) + variance(second) / len(second)
    difference = fmean(first) - fmean(second)
    return math.erfc(abs(difference) / math.sqrt(2 * spread)) if spread else float(difference == 0)
