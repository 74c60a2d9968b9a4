"""Batch files without a server: reading, ordering, interruption."""

import asyncio
import json

import pytest
from vllm_plugin_server.batch import lines as lines_module
from vllm_plugin_server.batch.asgi import Answer, call
from vllm_plugin_server.batch.lines import BadLine, Line, read_lines
from vllm_plugin_server.batch.run import EngineEnded, run
from vllm_plugin_server.batch.writer import OrderedWriter

JSON = {b"content-type": b"application/json"}


def entry(name, body=None, **fields):
    return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/x", "body": body or {"a": 1}, **fields})


def answers(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_requests_or_say_why_not(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        "\n".join(
            [entry("a"), "", "{", "[]", entry("b", method="GET"), entry("c", url="http://x/"), entry("d", body=[1]),
             '{"custom_id": 5}', entry("e")]
        ).encode() + b"\n\xff\xfe\n"
    )  # fmt: skip
    found = list(read_lines(path))
    assert [(type(line), line.number, line.custom_id) for line in found] == [
        (Line, 1, "a"), (BadLine, 3, None), (BadLine, 4, None), (BadLine, 5, "b"), (BadLine, 6, "c"),
        (BadLine, 7, "d"), (BadLine, 8, None), (Line, 9, "e"), (BadLine, 10, None),
    ]  # fmt: skip
    assert found[0].body == b'{"a": 1}'
    assert "method must be POST" in found[3].why


def test_a_custom_id_names_one_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(
        "\n".join([entry("a"), entry("b"), entry("a"), entry("b", method="GET"), '{"custom_id": "c"}', entry("c")])
    )
    found = list(read_lines(path))
    assert [type(line) for line in found] == [Line, Line, BadLine, BadLine, BadLine, BadLine]
    assert [line.why for line in found[2:]] == [
        "custom_id 'a' is that of line 1, too", "custom_id 'b' is that of line 2, too",
        "method must be POST, not None", "custom_id 'c' is that of line 5, too",
    ]  # fmt: skip
    assert [line.custom_id for line in found] == ["a", "b", "a", "b", "c", "c"]


def test_a_line_without_end_is_skipped_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "LONGEST", 1000)
    path = tmp_path / "in.jsonl"
    path.write_text("x" * 5_000_000 + "\n" + entry("a"))
    bad, good = read_lines(path)
    assert "5,000,001 bytes" in bad.why
    assert good.custom_id == "a"


def gather(tmp_path, items, ask, at_once=4, **more):
    out = tmp_path / "out.jsonl"

    async def go():
        with OrderedWriter(out, **more) as writer:
            return await run(items, ask, writer, at_once=at_once)

    return asyncio.run(go()), out


def made(count):
    return [Line(i + 1, f"r{i}", "/v1/x", json.dumps({"i": i}).encode()) for i in range(count)]


async def slow_first(path, body):
    i = json.loads(body)["i"]
    await asyncio.sleep(0.05 if i % 5 == 0 else 0)
    return Answer(200, JSON, body)


def test_answers_stand_in_the_order_of_the_requests(tmp_path):
    report, out = gather(tmp_path, made(50), slow_first)
    assert [a["custom_id"] for a in answers(out)] == [f"r{i}" for i in range(50)]
    assert [a["response"]["body"]["i"] for a in answers(out)] == list(range(50))
    assert (report.answered, report.failed) == (50, 0)
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_slow_request_holds_back_reading(tmp_path):
    read = 0

    def counted():
        nonlocal read
        for line in made(1000):
            read += 1
            yield line

    async def ask(path, body):
        if json.loads(body)["i"] == 0:
            while read < 9:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)  # time in which nothing more may be read
            assert read <= 2 * 4 + 1
        return Answer(200, JSON, body)

    report, _ = gather(tmp_path, counted(), ask, at_once=2)
    assert report.answered == 1000


def test_no_more_run_at_once_than_allowed(tmp_path):
    now = most = 0

    async def ask(path, body):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return Answer(200, JSON, body)

    gather(tmp_path, made(40), ask, at_once=3)
    assert most == 3


def test_failures_are_lines_too(tmp_path):
    async def ask(path, body):
        i = json.loads(body)["i"]
        if i == 1:
            return Answer(400, JSON, b'{"error": {"message": "no", "type": "x", "param": null, "code": "c"}}')
        if i == 2:
            return Answer(200, {b"content-type": b"text/event-stream"}, b"data: x")
        return Answer(200, JSON, b"{}")

    items = [*made(3), BadLine(4, "bad", "no JSON"), BadLine(5, None, "no JSON")]
    report, out = gather(tmp_path, items, ask)
    found = answers(out)
    assert (report.answered, report.failed) == (5, 4)
    assert found[0]["error"] is None
    assert found[1]["response"]["status_code"] == 400
    assert found[1]["error"]["message"] == "no"
    assert "leave stream out" in found[2]["error"]["message"]
    assert found[3] == {"id": found[3]["id"], "custom_id": "bad", "response": None,
                        "error": {"code": "invalid_line", "message": "line 4: no JSON"}}  # fmt: skip
    assert len({line["id"] for line in found}) == 5


def test_a_full_server_is_asked_again(tmp_path):
    tries = 0

    async def ask(path, body):
        nonlocal tries
        tries += 1
        if tries < 3:
            return Answer(429, JSON | {b"retry-after": b"0"}, b"{}")
        return Answer(200, JSON, b"{}")

    report, _ = gather(tmp_path, made(1), ask)
    assert (report.failed, tries) == (0, 3)


def test_an_interrupted_run_is_gone_on_with(tmp_path):
    asked = []

    async def dies(path, body):
        i = json.loads(body)["i"]
        asked.append(i)
        if i == 7:
            return Answer(503, JSON, b'{"error": {"message": "it died", "code": "engine_dead"}}')
        return Answer(200, JSON, body)

    with pytest.raises(EngineEnded, match="it died"):
        gather(tmp_path, made(20), dies, at_once=1)
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    assert not out.exists()
    assert len(answers(partial)) == 7
    with partial.open("a") as file:
        file.write('{"custom_id": "r7", "resp')  # what a crash may leave

    with pytest.raises(ValueError, match="--resume goes on"):
        gather(tmp_path, made(20), slow_first)
    asked.clear()

    async def well(path, body):
        asked.append(json.loads(body)["i"])
        return Answer(200, JSON, body)

    report, _ = gather(tmp_path, made(20), well, resume=True)
    assert asked == list(range(7, 20))
    assert (report.resumed, report.answered) == (7, 13)
    assert [a["custom_id"] for a in answers(out)] == [f"r{i}" for i in range(20)]


def test_another_input_is_not_gone_on_with(tmp_path):
    (tmp_path / "out.jsonl.partial").write_text('{"custom_id": "other"}\n')
    with pytest.raises(ValueError, match="of another input"):
        gather(tmp_path, made(3), slow_first, resume=True)


def test_an_application_is_called_as_a_server_would():
    async def app(scope, receive, send):
        message = await receive()
        assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/v1/x", b"a=1")
        assert dict(scope["headers"])[b"content-length"] == b"3"
        assert message == {"type": "http.request", "body": b"abc", "more_body": False}
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send({"type": "http.response.body", "body": b"2"})

    assert asyncio.run(call(app, "/v1/x?a=1", b"abc")) == Answer(201, {b"x": b"y"}, b"12")
