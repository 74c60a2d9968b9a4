"""Log lines: one record a line, whatever a client sends, and no secret in any."""

import io
import json
import logging
from types import SimpleNamespace as Bag

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm_plugin_server.logs.context import request_id
from vllm_plugin_server.logs.escape import escaped
from vllm_plugin_server.logs.formats import FACTS
from vllm_plugin_server.logs.observers import AccessLog, RequestLog, attach
from vllm_plugin_server.logs.setup import TALKATIVE, configure, installed

log = logging.getLogger("vllm_plugin_server.test")


@pytest.fixture
def lines():
    """Makes a stream that records go to; afterwards logging is as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in TALKATIVE}
    stream = io.StringIO()

    def begin(**options):
        configure(stream=stream, **options)
        # pytest would keep what it captures in its report, which xdist cannot send: there are halves of surrogates.
        root.handlers[:] = [handler for handler in root.handlers if getattr(handler, "stream", None) is stream]
        return stream

    yield begin
    root.handlers[:], root.level = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


HOSTILE = "ok\n2026-01-01T00:00:00.000Z ERROR forged: line\x1b[2J\r\u2028\u202e\x9b\ud800"


@given(st.text())
def test_any_text_stays_in_one_line_of_harmless_characters(text):
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    shown.encode()


@given(st.text(), st.text())
def test_two_texts_never_look_the_same(one, other):
    assert (escaped(one) == escaped(other)) == (one == other)


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_client_cannot_write_a_line_of_its_own(lines, style):
    stream = lines(style=style)
    log.info("model %s", HOSTILE, extra={FACTS: {"label": HOSTILE}})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_json_lines_hold_the_facts_and_the_request(lines):
    stream = lines(style="json")
    token = request_id.set("req-7")
    try:
        log.warning("slow", extra={FACTS: {"seconds": 1.5, "message": "not this one"}})
    finally:
        request_id.reset(token)
    line = json.loads(stream.getvalue())
    assert line["message"] == "slow"
    assert line["level"] == "warning"
    assert (line["request_id"], line["seconds"]) == ("req-7", 1.5)


def test_a_traceback_belongs_to_its_record(lines):
    stream = lines(style="text")
    try:
        raise ValueError("bad\nERROR forged")
    except ValueError:
        log.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_key_never_reaches_a_line(lines, style):
    stream = lines(style=style, secrets=["sk-very-secret"])
    try:
        raise ValueError("Bearer sk-very-secret")
    except ValueError:
        log.exception("refused sk-very-secret", extra={FACTS: {"label": "xsk-very-secretx"}})
    assert "sk-very-secret" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 3


def test_other_packages_write_from_warning_on(lines):
    stream = lines(level="debug")
    for name in ("httpx", "uvicorn.error", "asyncio", "somebody.else"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble")
    logging.getLogger("vllm_core.engine").debug("ours")
    logging.getLogger("vllm_plugin_other").debug("a plugin's")
    assert "chatter" not in stream.getvalue()
    assert stream.getvalue().count("trouble") == 4
    assert "a plugin's" in stream.getvalue()
    assert "ours" in stream.getvalue()


def test_configuring_again_takes_the_old_ones_place(lines):
    lines(style="text")
    stream = lines(style="json")
    log.info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_who_counts_what_was_dropped_finds_the_handler(lines):
    lines()
    (handler,) = logging.getLogger().handlers
    assert installed() is handler
    logging.getLogger().removeHandler(handler)
    assert installed() is None


@pytest.mark.parametrize("wrong", [{"level": "loud"}, {"style": "xml"}])
def test_an_unknown_level_or_format_is_refused(wrong):
    with pytest.raises(ValueError, match="must be one of"):
        configure(**wrong)


def test_a_text_line_names_its_request_once(lines):
    stream = lines(style="text")
    token = request_id.set("req-7")
    try:
        AccessLog().answered(exchange(request_id="req-7"))
        log.info("plain")
    finally:
        request_id.reset(token)
    assert [line.count("request_id=req-7") for line in stream.getvalue().splitlines()] == [1, 1]


def exchange(**fields):
    return Bag(**{
        "method": "POST", "route": "/v1/completions", "status": 200, "seconds": 0.25, "request_id": "req-1",
        "label": "", "client": "127.0.0.1", "disconnected": False, **fields,
    })  # fmt: skip


def test_the_access_log_has_the_template_and_not_the_path(lines):
    stream = lines(style="json")
    AccessLog().answered(exchange(route="/v1/models/{model}", path="/v1/models/sk-secret", label="mine"))
    line = json.loads(stream.getvalue())
    assert line["route"] == "/v1/models/{model}"
    assert line["request_id"] == "req-1"
    assert line["label"] == "mine"
    assert "sk-secret" not in stream.getvalue()


def test_what_machines_ask_every_second_is_written_when_it_fails(lines):
    stream = lines(style="json")
    AccessLog().answered(exchange(route="/health"))
    assert not stream.getvalue()
    AccessLog().answered(exchange(route="/health", status=503))
    assert json.loads(stream.getvalue())["status"] == 503


def call_and_output():
    params = Bag(n=1, temperature=0.5, max_tokens=8, stop=["SECRET"], structured_outputs="SECRET")
    call = Bag(request_id="req-1-0", route="/v1/completions", prompt_tokens=3, params=params)
    sample = Bag(token_ids=[1, 2], text="SECRET answer")
    return call, Bag(outputs=[sample], num_cached_tokens=0, prompt="SECRET prompt")


def test_the_request_log_has_no_word_of_prompts_and_answers(lines):
    stream = lines(style="json")
    call, output = call_and_output()
    RequestLog().began(call)
    RequestLog().ended(call, "stop", output)
    began, ended = map(json.loads, stream.getvalue().splitlines())
    assert (began["temperature"], began["prompt_tokens"]) == (0.5, 3)
    assert (ended["finish_reason"], ended["output_tokens"]) == ("stop", 2)
    assert "SECRET" not in stream.getvalue()


def test_prompts_are_written_when_asked_for_and_only_so_far(lines):
    stream = lines(style="json")
    call, output = call_and_output()
    RequestLog(characters=6).ended(call, "stop", output)
    line = json.loads(stream.getvalue())
    assert (line["prompt"], line["answers"]) == ("SECRET", ["SECRET"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"access_log": False, "log_requests": False, "log_prompts": 0}, []),
        ({"access_log": True, "log_requests": False, "log_prompts": 0}, [AccessLog]),
        ({"access_log": True, "log_requests": False, "log_prompts": 80}, [AccessLog, RequestLog]),
        ({"access_log": False, "log_requests": True, "log_prompts": 0}, [RequestLog]),
    ],
)
def test_settings_say_what_is_written(settings, expected):
    context = Bag(settings=Bag(**settings), observers=[])
    attach(context)
    assert [type(observer) for observer in context.observers] == expected
