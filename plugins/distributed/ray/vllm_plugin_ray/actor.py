"""A rank in a Ray actor. Bytes come and go: what they mean is the core's (`vllm_core.executors`)."""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import Any

import ray

LOAD, STEPS, RESULTS = "load", "steps", "results"


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={LOAD: 1, STEPS: 1, RESULTS: 1})
class RankActor:
    """Each group of calls has a thread of its own and keeps their order, so that steps are launched ahead."""

    def __init__(self) -> None:
        self._store: Any = None
        self._rank: Any = None
        self._results: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._last_words: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    @ray.method(concurrency_group=LOAD)
    def where(self) -> tuple[str, str, int]:
        """(host's address, its name, process id)"""
        return ray.util.get_node_ip_address(), socket.gethostname(), os.getpid()

    @ray.method(concurrency_group=LOAD)
    def open_store(self, host: str, world: int) -> str:
        from vllm_core.executors import open_store

        self._store, name = open_store(host, world)
        return name

    @ray.method(concurrency_group=LOAD)
    def load(self, start: bytes) -> bytes:
        from vllm_core.executors import Rank, decode_down, encode, failed

        try:
            self._rank = Rank(decode_down(start), self._store)
            started = encode(self._rank.load())
        except Exception as error:
            return encode(failed(error))
        threading.Thread(target=self._report, daemon=True, name="vllm-core-report").start()
        return started

    @ray.method(concurrency_group=STEPS, num_returns=0)
    def launch(self, step: bytes) -> None:
        """Nobody hears of what goes wrong here but by `last_word`."""
        from vllm_core.executors import encode, failed

        try:
            said = self._rank.launch(step)
        except Exception as error:
            said = failed(error)
        if said is not None:
            self._last_words.put(encode(said))

    @ray.method(concurrency_group=RESULTS)
    def take(self) -> bytes:
        """What the oldest step gave whose result nobody has taken. Never returns where another rank speaks."""
        return self._results.get()

    @ray.method(concurrency_group=LOAD)
    def last_word(self) -> bytes:
        """Returns when this rank cannot go on, whatever others wait for; or ends with this process."""
        return self._last_words.get()

    def _report(self) -> None:
        """In a thread: wait for steps in their order."""
        from vllm_core.executors import Failed, encode, failed

        while True:
            try:
                message = self._rank.take()
            except Exception as error:
                message = failed(error)
            if isinstance(message, Failed):
                self._last_words.put(encode(message))
                return
            if message is not None:
                self._results.put(encode(message))
