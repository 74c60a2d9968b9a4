"""The gates of R4, R7 and R19 find their faults: each planted in a server, or a run, that has no other."""

import asyncio
import json
import time

import attrs
import pytest
from vllm_plugin_server.testing import late as late_module
from vllm_plugin_server.testing import overload as overload_module
from vllm_plugin_server.testing.beside import Beside, Heard, compare
from vllm_plugin_server.testing.large import large_bodies
from vllm_plugin_server.testing.late import held_loop
from vllm_plugin_server.testing.overload import overload
from vllm_plugin_server.testing.probe import Probe
from vllm_plugin_server.testing.wire import address_of, request_bytes

ROUTE = "/v1/completions"
QUIET = Heard(answers=8, texts=[["a"], ["b"]], failures=[], gaps=100, p50=0.001, p99=0.01)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"texts": [["a"], ["b", "c"]]}, "1 of 2 streams said something else"),
        ({"p99": 0.02}, "2.00 x that of the quiet run"),
        ({"failures": ["cut off"]}, "a stream failed: cut off"),
        ({"gaps": 0}, "no gaps"),
    ],
)
def test_harm_to_a_neighbour_is_found(changed, said):
    assert compare(QUIET, attrs.evolve(QUIET, p99=0.019), 2.0)[0] == []
    (finding,) = compare(QUIET, attrs.evolve(QUIET, **changed), 2.0)[0]
    assert said in finding


def test_streams_run_in_a_process_of_their_own(victim, shape):
    def answer(method, path, body):
        if path == ROUTE and b'"stream": true' in body.replace(b'":t', b'": t'):
            event = {"choices": [{"index": 0, "text": "x", "finish_reason": None}]}
            end = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}],
                   "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}}  # fmt: skip
            pieces = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in (event, event, event, end))
            return 200, pieces + b"data: [DONE]\n\n", {"Content-Type": "text/event-stream"}
        return ...

    async def run():
        async with Beside(victim(answer).url, {}, "m") as beside:
            await asyncio.sleep(0.2)
            return await beside.heard()

    heard = asyncio.run(run())
    assert heard.failures == []
    assert heard.texts == [["xxx"]] * 8
    assert heard.answers >= 16
    assert heard.gaps > 0


def metrics(late=0, generated=0):
    """A page of /metrics: 1,000 looks in time, and so many that came too late."""
    lines = [f'vllm:event_loop_lag_seconds_bucket{{le="{bound}"}} {1000.0}' for bound in ("0.01", "0.05")]
    lines.append(f'vllm:event_loop_lag_seconds_bucket{{le="+Inf"}} {1000.0 + late}')
    return "\n".join([*lines, f"vllm:generation_tokens_total {generated}", ""]).encode()


@pytest.mark.parametrize(("times", "findings", "once"), [(0, 0, []), (1, 0, ["b"]), (3, 1, [])])
def test_what_holds_the_loop_each_time_is_found(victim, times, findings, once):
    late = 0

    def answer(method, path, body):
        nonlocal late
        late += body == b"slow" and late < times
        return (200, metrics(late)) if path == "/metrics" else (400, b"")

    address = address_of(victim(answer).url)
    asked = [
        (name, lambda body=body: request_bytes(address, "POST", ROUTE, body), False)
        for name, body in (("a", b"fast"), ("b", b"slow"))
    ]
    report = asyncio.run(held_loop(address, asked))
    assert len(report.findings) == findings
    assert report.once == once
    assert report.late["0.05"] == times


def test_an_answer_that_never_comes_is_found(victim, monkeypatch):
    monkeypatch.setattr(late_module, "PATIENCE", 0.3)

    def answer(method, path, body):
        return (200, metrics()) if path == "/metrics" else asyncio.sleep(5)

    address = address_of(victim(answer).url)
    report = asyncio.run(held_loop(address, [("a", lambda: request_bytes(address, "POST", ROUTE, b"x"), False)]))
    assert "no answer within 0.3 s" in report.findings[0]


class Places:
    """So many answers at once, each of so many seconds; the others are refused."""

    def __init__(self, shape, *, fault="", places=2, seconds=0.1):
        self.error, self.fault, self.places, self.seconds = shape, fault, places, seconds
        self.running = self.tokens = self.refused = 0

    def __call__(self, method, path, body):
        if path == "/metrics":
            return 200, metrics(generated=self.tokens)
        if path != ROUTE or b"One, two" in body:
            return ...
        if self.running >= self.places:
            self.refused += 1
            return self._refuse()
        self.running += 1
        return self._serve()

    async def _refuse(self):
        if self.fault == "refuses late":
            await asyncio.sleep(0.2)
        return 429, self.error(), {} if self.fault == "says no time" else {"Retry-After": "1"}

    async def _serve(self):
        slower = 4 if self.fault == "serves less" and self.refused > 5 else 1
        await asyncio.sleep(self.seconds * slower)
        self.running -= 1
        self.tokens += overload_module.TOKENS
        return 200, {"choices": [{"text": "x"}]}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", None),
        ("refuses late", "p99 of refusals"),
        ("says no time", "Retry-After ''"),
        ("serves less", "tokens a second, where the peak is"),
    ],
)
def test_a_server_that_bears_no_excess_is_found(victim, shape, monkeypatch, fault, said):
    monkeypatch.setattr(overload_module, "ROUNDS", 1)
    monkeypatch.setattr(overload_module, "WARM", 0.2)
    monkeypatch.setattr(overload_module, "MOST_REFUSAL", 0.15)  # other work on this machine is no fault
    monkeypatch.setattr(overload_module, "LEAST_SHARE", 0.5)
    address = address_of(victim(Places(shape, fault=fault)).url)
    report = asyncio.run(overload(address, Probe(address, "m"), places=2, seconds=2.0))
    if said is None:
        assert report.findings == []
        assert report.refused > 50
    else:
        assert any(said in finding for finding in report.findings), report


def test_a_server_with_fewer_places_than_told_is_found(victim, shape, monkeypatch):
    monkeypatch.setattr(overload_module, "ROUNDS", 1)
    monkeypatch.setattr(overload_module, "WARM", 0.1)
    address = address_of(victim(Places(shape, places=1)).url)
    report = asyncio.run(overload(address, Probe(address, "m"), places=2, seconds=0.3))
    assert any("--places must be its limit" in finding for finding in report.findings)


def test_large_bodies_fit_the_limit_and_have_names_of_their_own():
    found = list(large_bodies("m"))
    assert len({large.name for large in found}) == len(found) > 250
    begin = time.monotonic()
    for large in found[::40]:
        assert len(large.body()) <= 32 * 1024 * 1024
    assert time.monotonic() - begin < 120
