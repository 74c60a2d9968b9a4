"""Whether an engine process is stuck, from its pulse and from what its threads do. Never mistaken about a busy one.

A deadline that has passed is no proof: with more work on the machine than processors a good step takes many times as
long. So an engine is stuck only if, behind its deadline and without a beat, none of its threads even wants to run,
or one of them has used a second of processor time more.
"""

from __future__ import annotations

import time
from pathlib import Path

from vllm_core.engine.pids import is_stopped, threads_of
from vllm_core.engine.pulse import Beat, Mood, read_beat

__all__ = ["INTERVAL", "Watchdog"]

INTERVAL = 0.25  # seconds between two looks
LOOKS = 4  # in a row that must find the same
SPENT = 1.0  # seconds of processor time of one thread
UNSEEN = 40  # looks, where nobody tells what threads do


class Watchdog:
    """``look`` is called every INTERVAL. Time counts in looks: a watcher that was held up itself accuses nobody."""

    def __init__(self, pulse: Path, pid: int) -> None:
        self._pulse, self._pid = pulse, pid
        self._last = -1  # number of the beat at the last look
        self._late = self._still = self._stopped = self._asleep = 0  # looks in a row
        self._spent: dict[int, float] = {}  # seconds by thread, at the first late look

    def look(self, waiting: bool) -> str:
        """What is wrong, or "". ``waiting``: somebody waits for tokens."""
        beat = read_beat(self._pulse)
        if beat is None or beat.mood is Mood.STARTING:
            return ""
        same, self._last = beat.number == self._last, beat.number
        self._stopped = self._stopped + 1 if is_stopped(self._pid) else 0
        if self._stopped >= LOOKS:
            return f"the engine process (pid {self._pid}) was stopped by a signal"
        if beat.mood is Mood.ASLEEP:
            self._late = self._still = 0
            self._asleep = self._asleep + 1 if same and waiting else 0
            if self._asleep < 2 * LOOKS:
                return ""
            return f"the engine has slept for {time.monotonic() - beat.since:.1f} s while requests wait"
        self._asleep = 0
        if not same or time.monotonic() < beat.deadline:
            self._late = self._still = 0
            return ""
        return self._is_late(beat)

    def _is_late(self, beat: Beat) -> str:
        threads = threads_of(self._pid)
        self._late += 1
        if threads is None:
            return self._words(beat) if self._late >= UNSEEN else ""
        if self._late == 1:
            self._spent = {name: thread.seconds for name, thread in threads.items()}
        self._still = 0 if any(thread.runnable for thread in threads.values()) else self._still + 1
        spent = max(thread.seconds - self._spent.get(name, thread.seconds) for name, thread in threads.items())
        return self._words(beat) if self._still >= LOOKS or spent >= SPENT else ""

    def _words(self, beat: Beat) -> str:
        what = "gone on" if beat.step < 0 else f"finished step {beat.step}"
        seconds = time.monotonic() - beat.since
        return (
            f"the engine has not {what} for {seconds:.1f} s, {beat.deadline - beat.since:.1f} s at most were expected"
        )
