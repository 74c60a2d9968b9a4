"""Whether an engine process is stuck, from its pulse and from what its threads do. Never mistaken about a busy one.

A deadline that has passed is no proof: with more work on the machine than processors a good step takes many times as
long. So an engine is stuck only if, behind its deadline and without a beat, none of its threads even wants to run,
or one of them has had most of the time that the deadline allowed as time on a processor.
"""

from __future__ import annotations

import time
from pathlib import Path

from vllm_core.engine.pids import ThreadState, has_ended, is_stopped, threads_of
from vllm_core.engine.pulse import Beat, Mood, PulseView

__all__ = ["INTERVAL", "Watchdog"]

INTERVAL = 0.1  # seconds between two looks
LOOKS = 3  # in a row that must find the same
SLEEPS = 8  # looks that must find an engine asleep, and none of its threads awake, while somebody waits
LEAST = 0.4  # seconds of processor time that prove anything
SHARE = 0.6  # of what was allowed beyond the first second, which is for other things than computing
UNSEEN = 20  # looks, where nobody tells what threads do


class Watchdog:
    """``look`` is called every INTERVAL. Time counts in looks: a watcher that was held up itself accuses nobody."""

    def __init__(self, pulse: Path, pid: int, who: str = "the engine") -> None:
        self._pulse, self._pid, self._who = PulseView(pulse), pid, who
        self._last = -1  # number of the beat at the last look
        self._late = self._still = self._stopped = self._ended = self._asleep = 0  # looks in a row
        self._spent: dict[int, float] | None = None  # seconds by thread, when this beat was first found again
        self._allowed = 0.0  # seconds of processor time

    def look(self, waiting: bool) -> str:
        """What is wrong, or "". ``waiting``: somebody waits for tokens."""
        beat = self._pulse.read()
        if beat is None or beat.mood is Mood.STARTING:
            return ""
        same, self._last = beat.number == self._last, beat.number
        if not same:
            self._late = self._still = self._asleep = 0
            self._spent = None
        if wrong := self._is_down():
            return wrong
        if beat.mood is Mood.ASLEEP:
            return self._oversleeps(beat) if same and waiting else self._sleeps_well()
        return self._is_late(beat) if same else ""

    def _is_down(self) -> str:
        self._ended = self._ended + 1 if has_ended(self._pid) else 0
        self._stopped = self._stopped + 1 if is_stopped(self._pid) else 0
        if self._ended >= LOOKS:
            return f"{self._who}'s process (pid {self._pid}) has ended"
        if self._stopped >= LOOKS:
            return f"{self._who}'s process (pid {self._pid}) was stopped by a signal"
        return ""

    def _sleeps_well(self) -> str:
        self._asleep = 0
        return ""

    def _oversleeps(self, beat: Beat) -> str:
        """A message wakes it; only for a processor it may wait."""
        threads = threads_of(self._pid)
        runs = threads is not None and any(thread.runnable for thread in threads.values())
        self._asleep += not runs
        if self._asleep < SLEEPS:
            return ""
        return f"{self._who} has slept for {time.monotonic() - beat.since:.1f} s while requests wait"

    def _is_late(self, beat: Beat) -> str:
        now = time.monotonic()
        if self._spent is None:
            self._spent = _seconds(threads_of(self._pid))
            self._allowed = LEAST + SHARE * max(0.0, beat.deadline - beat.since - 1.0)
        if now < beat.deadline:
            return ""
        self._late += 1
        threads = threads_of(self._pid)
        if threads is None:
            return self._words(beat) if self._late >= UNSEEN else ""
        self._still = 0 if any(thread.runnable for thread in threads.values()) else self._still + 1
        seconds = _seconds(threads)
        spent = max(seconds[name] - self._spent.get(name, seconds[name]) for name in seconds)
        return self._words(beat) if self._still >= LOOKS or spent >= self._allowed else ""

    def _words(self, beat: Beat) -> str:
        what = "gone on" if beat.step < 0 else f"finished step {beat.step}"
        seconds = time.monotonic() - beat.since
        return (
            f"{self._who} has not {what} for {seconds:.1f} s, {beat.deadline - beat.since:.1f} s at most were expected"
        )


def _seconds(threads: dict[int, ThreadState] | None) -> dict[int, float]:
    return {} if threads is None else {name: thread.seconds for name, thread in threads.items()}
