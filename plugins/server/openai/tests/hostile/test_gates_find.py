"""The gates find what is wrong with a server: each kind of fault, planted in one that has no other."""

import asyncio

import pytest
from vllm_plugin_server.testing import hostile as hostile_module
from vllm_plugin_server.testing.burst import burst
from vllm_plugin_server.testing.case import BAD, OK, case
from vllm_plugin_server.testing.cases import all_cases
from vllm_plugin_server.testing.cases.auth import tricks
from vllm_plugin_server.testing.fuzz import fuzz
from vllm_plugin_server.testing.gates import growth
from vllm_plugin_server.testing.hostile import attack
from vllm_plugin_server.testing.mutate import mutant
from vllm_plugin_server.testing.probe import Probe, served_model
from vllm_plugin_server.testing.vanish import vanish
from vllm_plugin_server.testing.watch import Held
from vllm_plugin_server.testing.wire import address_of

ROUTE = "/v1/completions"
CASES = [
    case("a", "bad", ROUTE, {"prompt": 1}),
    case("a", "worse", ROUTE, b"{"),
    case("a", "fine", ROUTE, {"prompt": "x", "temperature": 0}, OK),
]


def found(server, cases=CASES):
    address = address_of(server.url)
    return asyncio.run(attack(address, cases, Probe(address, "m")))


def test_a_server_without_a_fault_passes(victim):
    report = found(victim())
    assert (report.passed, report.findings) == (3, [])
    assert report.statuses == {200: 1, 400: 2}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda error: (500, error("oops")), "500 instead of 400"),
        (lambda error: (200, {}), "200 instead of 400"),
        (lambda error: (404, error()), "404 instead of 400"),
        (lambda error: None, "IncompleteReadError"),
        (lambda error: (400, b"no"), "no error.message"),
        (lambda error: (400, {"error": "no"}), "no error.message"),
        (lambda error: (400, {"error": {"message": "no", "type": "x"}}), "has no code, param"),
        (lambda error: (400, error("x" * 9000)), "above 8,000"),
    ],
)
def test_a_wrong_answer_is_found(victim, shape, fault, said):
    server = victim(lambda method, path, body: fault(shape) if body == b"{" else ...)
    (finding,) = found(server).findings
    assert finding.name == "a/worse"
    assert said in finding.why


def test_a_stall_is_found(victim, monkeypatch):
    monkeypatch.setattr(hostile_module, "PATIENCE", 0.3)
    server = victim(lambda method, path, body: asyncio.sleep(5) if body == b"{" else ...)
    (finding,) = found(server).findings
    assert "no answer within 0.3 s" in finding.why


@pytest.mark.parametrize("fault", ["health", "refuses", "answers otherwise"])
def test_what_a_request_leaves_behind_is_found(victim, shape, fault):
    harmed = False

    def answer(method, path, body):
        nonlocal harmed
        harmed = harmed or body == b"{"
        if harmed and fault == "health" and path == "/health":
            return 503, shape()
        if harmed and path == ROUTE and body != b"{" and b"One, two" in body:
            if fault == "refuses":
                return 500, shape()
            if fault == "answers otherwise":
                return 200, {"choices": [{"text": "something else"}]}
        return ...

    names = [finding.name for finding in found(victim(answer)).findings]
    assert names == ["a/worse", "a/fine"]


def test_routes_that_a_server_does_not_have_are_left_out(victim):
    report = found(victim(), [*CASES, case("b", "x", "/tokenize", {})])
    assert (report.passed, report.left_out) == (3, 1)


def test_the_set_is_large_and_its_names_are_unique():
    cases = all_cases("m")
    assert len(cases) >= 460
    assert {c.want for c in cases} - {BAD, OK}
    assert len({(c.group, c.name) for c in cases}) == len(cases)


def test_an_open_door_is_found(victim):
    server = victim()
    address = address_of(server.url)
    cases = tricks(address, "k" * 32, "m")
    assert len(cases) >= 35
    report = asyncio.run(attack(address, [c for c in cases if b"GET /v1/models HTTP" in c.raw], None))
    assert report.passed == 0
    assert len(report.findings) > 20


def test_mutants_are_the_same_for_the_same_seed():
    address = address_of("http://127.0.0.1:1")
    first = [mutant(address, "m", 7, i) for i in range(300)]
    assert first == [mutant(address, "m", 7, i) for i in range(300)]
    assert first != [mutant(address, "m", 8, i) for i in range(300)]
    assert len({made.request for made in first}) > 280
    assert 5 < sum(not made.must_answer for made in first) < 60


def test_a_fault_of_one_field_is_fuzzed_out(victim, shape):
    def answer(method, path, body):
        return (500, shape("found")) if b'"top_k"' in body else ...

    address = address_of(victim(answer).url)
    report = asyncio.run(fuzz(address, Probe(address, "m"), seed=1, indexes=range(400)))
    assert report.sent == 400
    assert report.findings
    assert all("top_k" in finding.name for finding in report.findings), report.findings


def test_blocks_that_stay_are_found(victim):
    address = address_of(victim().url)
    assert not asyncio.run(vanish(address, Probe(address, "m"), drops=20, seed=1)).findings

    asked = 0

    def answer(method, path, body):
        nonlocal asked
        asked += path == "/metrics"
        used = 0.5 if asked > 2 else 0.0
        lines = f"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc {used}\n"
        return (200, lines.encode()) if path == "/metrics" else ...

    address = address_of(victim(answer).url)
    report = asyncio.run(vanish(address, Probe(address, "m"), drops=20, seed=1, patience=0.3))
    assert "cache 0.5" in report.findings[0]


def test_a_refusal_without_a_time_to_come_back_is_found(victim, shape):
    def server(headers):
        def answer(method, path, body):
            return (429, shape(), headers) if b'"Hello"' in body else ...

        return address_of(victim(answer).url)

    address = server({})
    assert "Retry-After ''" in asyncio.run(burst(address, Probe(address, "m"), requests=3)).findings[0]
    address = server({"Retry-After": "2"})
    report = asyncio.run(burst(address, Probe(address, "m"), requests=3))
    assert (report.findings, report.refused) == ([], 3)


def test_growth_is_more_than_a_twentieth_and_64_mib():
    before = Held(resident=1 << 30, files=10, threads=5, processes=2)
    assert not growth(before, Held((1 << 30) + (60 << 20), 10, 5, 2))
    assert len(growth(before, Held((1 << 30) + (70 << 20), 11, 6, 2))) == 3


def test_a_server_that_names_no_model_is_said_so(victim, shape):
    server = victim(lambda method, path, body: (401, shape()) if path == "/v1/models" else ...)
    with pytest.raises(Exception, match="is a key needed"):
        asyncio.run(served_model(address_of(server.url)))
