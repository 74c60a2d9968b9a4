"""`MetricsSinkConformance`: the tests that every metrics sink runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.engine.sinks import Sinks
from vllm_core.interfaces.metrics import RequestStats, StepStats
from vllm_core.interfaces.queries import MetricsQuery
from vllm_core.plugin import Offer
from vllm_core.testing.hollow import HollowRequest, expected, hollow_engine, run
from vllm_core.testing.installed import Installed, InstalledConformance
from vllm_core.testing.metrics_records import full_requests, full_steps, holds, values_of

__all__ = ["MetricsSinkConformance"]

QUERY = MetricsQuery(
    model="tiny", config={"max_model_len": 64, "max_num_seqs": 8, "max_num_batched_tokens": 16, "dtype": "float32"}
)
MANY = 2000  # records, more than a buffer of the system's takes
PATIENCE = 20.0  # seconds; what hangs takes longer on any machine


class MetricsSinkConformance(InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    sink      the name of its offer
    always    it offers itself without any setting
    cannot    "unreachable": there is no place that could fail to take what is sent -> why
    """

    kind = "metrics-sink"
    hook = "metrics_sink"
    subject = "sink"

    sink: ClassVar[str]
    always: ClassVar[bool] = False

    # ---- what subclasses say

    @classmethod
    def configure(cls, folder: Path) -> Mapping[str, Any]:
        """Settings, as in [plugin.NAME], with which it sends to a place of the test's own, in or for this folder."""
        raise NotImplementedError(f"{cls.__name__}.configure says where the tested sink sends to")

    @classmethod
    def received(cls, folder: Path) -> str:
        """All that has arrived there, as text."""
        raise NotImplementedError(f"{cls.__name__}.received reads what the sink has sent")

    @classmethod
    def unreachable(cls, folder: Path) -> Mapping[str, Any]:
        """Settings with which it sends to a place that takes nothing: nobody reads, nobody listens."""
        raise NotImplementedError(f"{cls.__name__}.unreachable says where nothing can be sent to")

    def check(self, received: str, steps: Sequence[StepStats], requests: Sequence[RequestStats]) -> None:
        """Whether all has arrived. Override it for a sink that adds up or leaves out; this wants every value."""
        records: list[StepStats | RequestStats] = [*steps, *requests]
        for record in records:
            for field, value in values_of(attrs.asdict(record)):
                assert holds(received, value), (
                    f"{type(record).__name__}.{field} = {value!r} was sent and has not arrived:\n{received[-500:]}"
                )

    # ---- what tests use

    @pytest.fixture
    def make(self) -> Callable[[Mapping[str, Any]], Any]:
        """``make(settings)``: a sink as an engine makes it."""

        def made(settings: Mapping[str, Any]) -> Any:
            installed = Installed(self.hook, self.sink, {**self.plugin_settings, **settings})
            offer = installed.answer(QUERY)
            assert isinstance(offer, Offer), f"configured, {self.hook} answers {offer!r}"
            assert offer.name == self.sink
            decision = installed.choose(QUERY)
            return decision.load()(attrs.evolve(QUERY, options=offer.options))

        return made

    def test_it_offers_itself_where_it_is_configured_and_nowhere_else(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        make(self.configure(tmp_path)).close()
        answer = Installed(self.hook, self.sink).answer(QUERY)
        assert isinstance(answer, Offer) == self.always, (
            f"without settings {self.hook} answers {answer!r}; a sink that nobody asked for answers None"
        )

    def test_every_value_of_every_record_arrives(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        sink = make(self.configure(tmp_path))
        steps, requests = full_steps(), full_requests()
        for step, request in zip(steps, requests, strict=True):
            sink.step(step)
            sink.request(request)
        sink.close()
        self.check(self.received(tmp_path), steps, requests)

    def test_what_was_buffered_is_sent_at_the_end(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        sink = make(self.configure(tmp_path))
        only = full_requests()[0]
        sink.request(only)
        sink.close()
        self.check(self.received(tmp_path), [], [only])

    def test_two_engines_do_not_meet(self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path) -> None:
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        sinks = [make(self.configure(folder)) for folder in folders]
        requests = full_requests()[:2]
        for sink, request in zip(sinks, requests, strict=True):
            sink.request(request)
        for sink in reversed(sinks):
            sink.close()
        for folder, request in zip(folders, requests, strict=True):
            self.check(self.received(folder), [], [request])

    def test_nothing_is_left_when_it_is_closed(self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path) -> None:
        before = set(threading.enumerate())
        sink = make(self.configure(tmp_path))
        sink.step(full_steps()[0])
        sink.close()
        deadline = time.monotonic() + PATIENCE
        while (left := _left(tmp_path, before)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"after close() there is still {', '.join(left)}"

    def test_an_engine_that_ends_has_told_of_all_itsfull_requests(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        heard = _Heard()
        sinks = Sinks({"tested": make(self.configure(tmp_path)), "the kit's": heard})
        _engine_run(sinks)
        assert heard.closed
        assert len(heard.requests) == len(REQUESTS)
        self.check(self.received(tmp_path), heard.steps, heard.requests)

    # ---- a place that takes nothing

    def test_calls_return_though_nobody_takes_what_is_sent(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        self.needs("unreachable")

        def use() -> None:
            sink = make(self.unreachable(tmp_path))
            steps, requests = full_steps(), full_requests()
            for i in range(MANY):
                sink.step(steps[i % len(steps)])
                sink.request(requests[i % len(requests)])
            sink.close()

        _within(use, "it is made, told of many records and closed")

    def test_an_engine_goes_on_though_nobody_takes_what_is_sent(
        self, make: Callable[[Mapping[str, Any]], Any], tmp_path: Path
    ) -> None:
        self.needs("unreachable")
        _within(
            lambda: _engine_run(Sinks({"tested": make(self.unreachable(tmp_path))})), "an engine runs", refused=True
        )


class _Heard:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.steps: list[StepStats] = []
        self.requests: list[RequestStats] = []
        self.closed = False

    def step(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def request(self, stats: RequestStats) -> None:
        self.requests.append(stats)

    def close(self) -> None:
        self.closed = True


REQUESTS = [HollowRequest(prompt=tuple(range(3 + i)), tokens=5 + i) for i in range(6)]


def _engine_run(sinks: Sinks) -> None:
    """All requests are answered as without sinks; then the engine ends."""
    engine = hollow_engine()
    engine.core.meter.listeners.append(sinks)
    for output in run(engine, REQUESTS):
        request = REQUESTS[int(output.request_id)]
        assert output.outputs[0].token_ids == expected(request.prompt, request.tokens)
    sinks.close()


def _within(work: Callable[[], None], what: str, refused: bool = False) -> None:
    """``work`` ends, wherever it waits; an ``Exception`` of the sink's counts as an end, which the core contains."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"{what}, and a call has not returned after {PATIENCE:g} s; send from a thread"
    wrong = [e for e in raised if isinstance(e, AssertionError) or not isinstance(e, Exception)]
    if wrong:
        raise wrong[0]


def _left(folder: Path, before: set[threading.Thread]) -> Iterator[str] | list[str]:
    """Threads that were not there, and files open in this folder."""
    left = [f"the thread {thread.name}" for thread in threading.enumerate() if thread not in before]
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith(str(folder)):
            left.append(f"the open file {target}")
    return left
