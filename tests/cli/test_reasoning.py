"""``vllm-core chat`` where a parser tells reasoning from the answer."""

import sys

import pytest

from vllm_core.engine.chat_parsing import ChatParsing
from vllm_core.engine.parsing import Made
from vllm_core.interfaces.reasoning_parser import ReasoningParse


class UpToBar:
    """Words before "|" are reasoning."""

    over = False

    def starts_inside(self, prompt_ids):
        return True

    def feed(self, text, ids):
        before, bar, after = ("", "", text) if self.over else text.partition("|")
        self.over = self.over or bool(bar)
        return ReasoningParse(reasoning=before, content=after)

    def finish(self):
        return ReasoningParse()


@pytest.fixture
def thinking(echo, monkeypatch):
    stream = echo.stream

    def parsed(self, prompt, params):
        parsing = ChatParsing(None, Made(UpToBar, "x"))
        for output in stream(self, prompt, params):
            yield parsing.read(output)

    monkeypatch.setattr(echo, "stream", parsed)
    return echo


def test_reasoning_and_answer_stand_under_headings(run, thinking):
    code, out, _ = run("chat", "M", "d c | b a")
    assert (code, out) == (0, "[reasoning]\na b \n[answer]\nc d\n")


def test_on_a_terminal_reasoning_is_dimmed(run, thinking, monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    _, out, _ = run("chat", "M", "c | b a")
    plain = out.replace("\x1b[2m", "<").replace("\x1b[22m", ">")
    assert plain.startswith("<a>< b>< >\n\nc\n")


def test_quiet_prints_the_answer_alone(run, thinking):
    assert run("chat", "M", "d c | b a", "-q")[:2] == (0, "c d\n")
    assert run("chat", "M", "b a", "-q")[:2] == (0, "\n")


def test_without_reasoning_there_are_no_headings(run, thinking):
    assert run("chat", "M", "b a |")[1] == " a b\n"


def test_without_a_parser_the_text_is_printed_as_it_is(run, echo):
    assert run("chat", "M", "c | b")[1] == "b | c\n"
