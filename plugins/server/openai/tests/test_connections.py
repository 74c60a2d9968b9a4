"""Connections as bad clients use them: limits on headers, on time and on what is left unread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
import weakref
from types import SimpleNamespace

import attrs
import httpx
import pytest
import uvicorn
from vllm_plugin_server.admission import Admission
from vllm_plugin_server.app import Served, assemble
from vllm_plugin_server.body import room_of
from vllm_plugin_server.describe import describe
from vllm_plugin_server.limits import LIMITS
from vllm_plugin_server.protocol import LimitedProtocol
from vllm_plugin_server.settings import ServerSettings
from vllm_plugin_server.stream import EventStream, json_answer
from vllm_plugin_server.work import Work

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.plugin import Endpoint


class Bare:
    """The server's own layers around three small routes, without an engine, in a thread."""

    def __init__(self, **settings) -> None:
        self.context = ServerContext(
            engine=SimpleNamespace(dead=None), models={"m": "base"}, settings=ServerSettings(**settings),
            report=dict, work=Work(2, 0.5), admission=Admission(4), started=0.0,
        )  # fmt: skip
        self.ended = threading.Event()  # a stream was left
        self.sent = 0
        routes = [("/answer", self.answer), ("/stream", self.stream), ("/fail", self.fail), ("/wait", self.wait)]
        app = assemble(
            self.context, [Served(Endpoint(path, "a:B", ("POST", "GET")), handler) for path, handler in routes]
        )
        self.boundary = app.boundary
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(
            app.app, http=LimitedProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_keep_alive=2,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request):
        return json_answer({"bytes": len(request.state.body), "id": request.state.request_id})

    async def fail(self, request):
        raise {"key": KeyError("secret"), "value": ValueError("n is wrong"), "time": TimeoutError()}[
            request.query_params["how"]
        ]

    @describe(queued=True)
    async def wait(self, request):
        with self.context.admission.hold(1):
            await asyncio.sleep(1)
        return json_answer({})

    async def stream(self, request):
        async def pieces():
            try:
                while True:
                    self.sent += 1
                    yield b"data: " + b"x" * 8000 + b"\n\n"
                    await asyncio.sleep(0)
            finally:
                self.ended.set()

        return EventStream(pieces())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def say(self, data: bytes) -> bytes:
        """All that comes back until the connection is closed."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def close(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(5)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.fixture
def short(monkeypatch):
    """Limits in time that a test can wait for."""
    for name in ("header_seconds", "write_seconds", "body_seconds"):
        monkeypatch.setitem(LIMITS, name, attrs.evolve(LIMITS[name], most=0.3))


@pytest.fixture
def bare(short):
    server = Bare()
    yield server
    server.close()


HEAD = b"POST /answer HTTP/1.1\r\nhost: x\r\n"
REFUSED = {
    "no HTTP": (b"hello there\r\n\r\n", 400),
    "a preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100, 400),
    "two lengths": (HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
    "length and chunks": (HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a negative length": (HEAD + b"content-length: -1\r\n\r\n", 400),
    "an endless length": (HEAD + b"content-length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "101 headers": (HEAD + b"".join(b"x-%d: y\r\n" % i for i in range(101)) + b"\r\n", 431),
    "a long header": (HEAD + b"x: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    "many long headers": (HEAD + b"".join(b"x-%d: %s\r\n" % (i, b"y" * 1000) for i in range(70)) + b"\r\n", 431),
    "a long path": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
    "a header that does not end": (HEAD + b"x: " + b"y" * 300_000, 431),
    "a name with a space": (HEAD + b"a b: c\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_request_is_refused_in_the_shape_of_all_errors(bare, data, status):
    answer = bare.say(data)

    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert b"connection: close" in head
    assert httpx.get(f"{bare.url}/answer").status_code == 200  # the next one is served


def test_headers_that_come_too_slowly_end_the_connection(bare):
    with bare.connect() as connection:
        connection.sendall(HEAD)
        begun = time.monotonic()
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < 3


def test_a_connection_that_says_nothing_is_closed(bare):
    with bare.connect() as connection:
        assert read_all(connection) == b""


def test_a_body_that_does_not_come_is_a_408(bare):
    answer = bare.say(HEAD + b"content-length: 10\r\n\r\nab")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].startswith("the body did not come")


def test_an_idle_connection_outlives_the_limit_on_headers_and_is_then_closed(bare):
    with bare.connect() as connection:
        for _ in range(3):
            connection.sendall(b"GET /answer HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
            time.sleep(0.5)  # longer than headers may take
        assert read_all(connection) == b""


def test_an_answer_may_take_longer_than_headers_may(bare):
    assert httpx.post(f"{bare.url}/wait", json={}).status_code == 200


def test_a_reader_that_stalls_is_dropped_and_its_request_ends(bare):
    with bare.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        assert bare.ended.wait(5)
        assert bare.sent * 8000 < 16 << 20  # what was made for it stayed within the system's buffers
    assert httpx.get(f"{bare.url}/answer").status_code == 200


def test_a_client_that_leaves_ends_its_request(bare):
    with httpx.stream("GET", f"{bare.url}/stream") as stream:
        next(stream.iter_raw())
    assert bare.ended.wait(5)


def test_a_body_too_large_is_a_413_that_the_client_can_read(bare, monkeypatch):
    monkeypatch.setitem(LIMITS, "body_seconds", attrs.evolve(LIMITS["body_seconds"], most=60))
    body = b"x" * (LIMITS["body_bytes"].most + 1)

    answer = httpx.post(f"{bare.url}/answer", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")

    def chunks():
        for i in range(0, len(body), 1 << 20):
            yield body[i : i + (1 << 20)]

    answer = httpx.post(f"{bare.url}/answer", content=chunks())
    assert answer.status_code == 413
    assert httpx.post(f"{bare.url}/answer", content=body[:-1]).json()["bytes"] == len(body) - 1


def test_bodies_that_are_too_many_together_are_sent_away_until_there_is_room(bare, monkeypatch):
    monkeypatch.setitem(LIMITS, "all_bodies_bytes", attrs.evolve(LIMITS["all_bodies_bytes"], most=3000))
    body = b"x" * 2000
    begun = f"POST /answer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", bare.port)) as slow:
        slow.sendall(begun + body[:-1])
        room = room_of(bare.context)
        until(lambda: room.held == len(body) - 1)
        answer = httpx.post(f"{bare.url}/answer", content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert httpx.post(f"{bare.url}/answer", content=body[:500]).status_code == 200
        assert room.held == len(body) - 1
        slow.sendall(body[-1:])
        assert b"200 OK" in slow.recv(4096)
    assert httpx.post(f"{bare.url}/answer", content=body).status_code == 200
    with socket.create_connection(("127.0.0.1", bare.port)) as gone:
        gone.sendall(begun + body[:-1])
        until(lambda: room.held == len(body) - 1)
    until(lambda: room.held == 0)


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_compressed_body_is_refused_before_anybody_unpacks_it(bare):
    answer = httpx.post(f"{bare.url}/answer", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})

    assert answer.status_code == 415


def test_requests_in_one_piece_are_answered_in_order(bare):
    one = b"GET /answer HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = bare.say(one * 3 + one.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_a_bug_is_a_500_without_its_text_and_a_value_error_a_400(bare):
    answer = httpx.get(f"{bare.url}/fail?how=key")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]["code"] == "internal_error"

    answer = httpx.get(f"{bare.url}/fail?how=value")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
    assert httpx.get(f"{bare.url}/fail?how=time").status_code == 504


def test_ids_are_the_servers_and_the_clients_is_echoed(bare):
    answer = httpx.get(f"{bare.url}/answer", headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-vllm-core-request-id"] == answer.json()["id"] != "mine"

    answer = httpx.get(f"{bare.url}/answer", headers={"x-request-id": "ü".encode()})
    assert answer.headers["x-request-id"] == answer.json()["id"]


def test_one_too_many_is_told_to_come_back(bare):
    answers = []
    with httpx.Client(base_url=bare.url) as client:
        client.get("/answer")  # the connection is there
        threads = [threading.Thread(target=lambda: answers.append(client.post("/wait", json={}))) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 8
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert bare.context.admission.held == 0


def test_a_request_that_takes_too_long_is_a_504(short):
    server = Bare(request_timeout=0.2)
    try:
        answer = httpx.post(f"{server.url}/wait", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
        events = httpx.get(f"{server.url}/stream").text
        assert "request_timeout" in events[-300:]  # a stream that had begun says so as its last event
        assert server.context.admission.held == 0
    finally:
        server.close()


def test_all_threads_that_read_requests_are_there_from_the_start():
    before = threading.active_count()
    work = Work(3, 1.0)
    try:
        assert threading.active_count() == before + 3
        assert asyncio.run(work(len, "x" * 10_000, size=10_000)) == 10_000
        assert threading.active_count() == before + 3
    finally:
        work.close()


def test_work_that_does_not_end_is_stopped_and_its_thread_goes_on(bare):
    work = Work(1, 0.3)

    def forever():
        while True:
            pass

    async def ask():
        begun = time.monotonic()
        with pytest.raises(Exception, match="took longer than"):
            await work(forever, size=10**6)
        assert time.monotonic() - begun < 2
        return await work(lambda: "next", size=10**6)

    assert asyncio.run(ask()) == "next"


def test_a_refused_body_is_not_kept_as_garbage(bare):
    """Cycles are looked for seldom (`garbage`): what is refused must not wait in one."""

    class Held:
        def __init__(self, value):
            self.value = value

    async def held():
        value = Held(1)
        kept = weakref.ref(value)

        def read(data):
            raise ValueError(f"{data.value} is refused")

        with contextlib.suppress(ValueError):
            await bare.context.work(read, value, size=10**6)
        return kept

    gc.collect()
    gc.disable()
    try:
        kept = asyncio.run(held())
        until(lambda: kept() is None)  # the thread lets go of its work just after it has said so
    finally:
        gc.enable()
