"""A rank in a Ray actor. Bytes come and go: what they mean is the core's (`vllm_core.executors`)."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray

LOAD, STEPS, RESULTS = "load", "steps", "results"


@ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={LOAD: 1, STEPS: 1, RESULTS: 1})
class RankActor:
    """Each group of calls has a thread of its own and keeps their order, so that steps are launched ahead."""

    def __init__(self) -> None:
        self._store: Any = None
        self._rank: Any = None

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
            return encode(self._rank.load())
        except Exception as error:
            return encode(failed(error))

    @ray.method(concurrency_group=STEPS)
    def launch(self, step: bytes) -> bytes:
        """b"", or the rank's last word."""
        from vllm_core.executors import encode

        last_word = self._rank.launch(step)
        return b"" if last_word is None else encode(last_word)

    @ray.method(concurrency_group=RESULTS)
    def take(self) -> bytes:
        """What the oldest step that was launched gave; b"" where another rank speaks."""
        from vllm_core.executors import encode

        message = self._rank.take()
        return b"" if message is None else encode(message)

    @ray.method(concurrency_group=LOAD)
    def until_the_end(self) -> None:
        """Never returns: whoever waits for it learns that this process has ended."""
        import threading

        threading.Event().wait()
