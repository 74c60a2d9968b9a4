"""The counter between callers in this process and the engine: requests in, each one's outputs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from vllm_core.engine.interrupts import InterruptsHeld
from vllm_core.engine.local import LocalEngine
from vllm_core.engine.outputs import RequestOutput
from vllm_core.engine.prompts import Prompt
from vllm_core.engine.sampling_params import SamplingParams

__all__ = ["Desk"]


class Desk:
    """The engine goes on only while a caller waits. Several streams and a batch may be open at once.

    Ctrl-C ends a caller's wait between two steps, so the engine stays whole. Callers in several
    threads take turns, a step each.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._count = 0
        self._steps = 0
        self._inbox: dict[str, list[RequestOutput]] = {}  # by request: what has not been fetched yet

    def next_id(self) -> str:
        with self._lock:
            self._count += 1
            return str(self._count - 1)

    def submit(
        self, name: str, prompt: Prompt, params: SamplingParams, *, stream: bool = False, priority: int = 0
    ) -> None:
        """Raises ``RequestError``. Afterwards the request must be collected or forgotten."""
        with self._lock, InterruptsHeld():
            self._engine.add_request(
                name,
                prompt.token_ids,
                params,
                prompt=prompt.text,
                stream=stream,
                priority=priority,
                cache_salt=prompt.cache_salt,
            )
            self._inbox[name] = []

    def stream(self, name: str, prompt: Prompt, params: SamplingParams) -> Iterator[RequestOutput]:
        """Submit a request and give its outputs as they come. Leaving the iteration ends the request."""
        try:
            self.submit(name, prompt, params, stream=True)
            while True:
                with self._lock:
                    if not self._inbox[name]:
                        self._step()
                    outputs, self._inbox[name] = self._inbox[name], []
                for output in outputs:
                    if output.finished:
                        del self._inbox[name]
                    yield output
                    if output.finished:
                        return
        finally:
            self.forget([name])

    def collect(self, names: Sequence[str], finished: Callable[[], object]) -> dict[str, RequestOutput]:
        """Wait for the last outputs of requests that do not stream. ``finished`` is called once for each."""
        waiting, done, seen = set(names), dict[str, RequestOutput](), -1
        while waiting:
            with self._lock:
                # Another caller's steps may have finished any of them, one's own only those it names.
                news = list(waiting) if self._steps != seen else self._step()
                seen = self._steps
            for name in news:
                if name in waiting:
                    waiting -= self._settle(name, done, finished)
        return done

    def forget(self, names: Sequence[str]) -> None:
        """Nobody waits for these any more: end those that still run."""
        with self._lock, InterruptsHeld():
            for name in names:
                if self._inbox.pop(name, None) is not None:
                    self._engine.abort(name)

    def _settle(self, name: str, done: dict[str, RequestOutput], finished: Callable[[], object]) -> set[str]:
        if not self._inbox[name]:
            return set()
        done[name] = self._inbox.pop(name)[-1]
        finished()
        return {name}

    def _step(self) -> list[str]:
        """Go on by a step; the requests that have news."""
        with InterruptsHeld():
            self._steps += 1
            outputs = self._engine.step()
            for output in outputs:
                if output.request_id in self._inbox:  # else: ended by ``forget``
                    self._inbox[output.request_id].append(output)
        return [output.request_id for output in outputs]
