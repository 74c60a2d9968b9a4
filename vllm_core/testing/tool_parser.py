"""`ToolParserConformance`: the tests that every tool parser runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.interfaces.tool_parser import ToolCall, ToolDelta, ToolParse
from vllm_core.plugins import Decision
from vllm_core.testing.cuts import Pieces, TinyTokenizer, chunkings, cuts
from vllm_core.testing.parser import ParserConformance
from vllm_core.testing.tool_bad_texts import ToolBadTexts
from vllm_core.testing.tool_examples import STANDARD, TOOLS, ToolExample

__all__ = ["ToolExample", "ToolParserConformance"]


class ToolParserConformance(ToolBadTexts, ParserConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    parser      its name, as in --tool-call-parser
    markers     what the model writes around calls
    examples    name -> ``ToolExample``: texts of the model, and what is in them
    markup      words of the format that ``write`` does not write; they may be left out of content and calls
    templates, other_templates   chat templates for which it must and must not offer unnamed
    cannot      what one may expect and it does not do -> why; printed after every run. Known names:
                "text after calls", "streamed arguments"
    """

    kind = "tool-parser"
    hook = "tool_parser"

    parser: ClassVar[str]
    examples: ClassVar[Mapping[str, ToolExample]] = {}
    markup: ClassVar[str] = ""
    tools: ClassVar[Sequence[dict[str, Any]]] = TOOLS

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The text by which the model calls: (name, arguments in JSON) each."""
        raise NotImplementedError(f"{type(self).__name__} must say how a model calls: write(calls) returns its text")

    # ---- what is read

    def all_examples(self) -> dict[str, ToolExample]:
        found = dict(self.examples)
        for name, calls in STANDARD.items():
            for ascii_only in (False, True):
                text = self.write([(n, json.dumps(a, ensure_ascii=ascii_only)) for n, a in calls])
                found[f"{name}{', escaped' if ascii_only else ''}"] = ToolExample(text, calls)
        for marker in self.markers:
            call = ("write", {"text": f"before {marker} after"})
            found[f"{marker} in an argument"] = ToolExample(self.write([(call[0], json.dumps(call[1]))]), [call])
        return found

    def texts(self) -> list[str]:
        return [example.text for example in self.all_examples().values()]

    @pytest.fixture
    def make(self, decision: Decision, tokenizer: TinyTokenizer) -> Any:
        target, options = decision.load(), decision.offer.options
        return lambda other=None, tools=None: target(other or tokenizer, list(tools or self.tools), **options)

    def usual(self, make: Any, tokenizer: Any) -> Any:
        return make(tokenizer)

    @staticmethod
    def stream(parser: Any, pieces: Pieces) -> ToolParse:
        """Feed and join; along the way the parts of calls are checked for form."""
        parts = [parser.feed(text, ids) for text, ids in pieces]
        parts.append(parser.finish())
        calls: list[ToolCall] = []
        for delta in (call for part in parts for call in part.calls):
            assert isinstance(delta, ToolDelta), f"feed and finish give ToolDelta, not {delta!r}"
            assert delta.index in (len(calls), len(calls) - 1), f"{delta} comes after call {len(calls) - 1}"
            if delta.index == len(calls):
                assert delta.name, f"the first part of call {delta.index} has no name"
                calls.append(ToolCall(name=delta.name, arguments=delta.arguments, id=delta.id))
            else:
                assert not delta.name, f"a later part of call {delta.index} has the name {delta.name!r} again"
                assert not delta.id, f"a later part of call {delta.index} has the id {delta.id!r} again"
                calls[-1] = attrs.evolve(calls[-1], arguments=calls[-1].arguments + delta.arguments)
        return ToolParse(content="".join(part.content for part in parts), calls=tuple(calls))

    @staticmethod
    def plain(parse: ToolParse) -> tuple[str, list[tuple[str, str]]]:
        """Without ids, which may be made at random."""
        return parse.content, [(call.name, call.arguments) for call in parse.calls]

    def assert_streams_alike(self, make: Any, text: str, pieces: Pieces, how: str = "") -> None:
        __tracebackhide__ = True
        shown = [piece for piece, _ in pieces]
        want = self.plain(self.parsed(make, text))
        got = self.plain(self.told(f"the stream {shown!r:.300}", lambda: self.stream(make(), pieces)))
        assert got == want, (
            f"{how or 'streamed'} as {shown!r:.300}\n  gives {got!r:.400}\n"
            f"  and whole {want!r:.400}\n  of {text!r:.400}"
        )

    def parsed(self, make: Any, text: str) -> ToolParse:
        __tracebackhide__ = True
        return self.told(f"parse of {text!r:.400}", lambda: make().parse(text))

    # ---- well-formed texts

    def test_it_finds_the_calls_and_the_content(self, make: Any) -> None:
        for name, example in self.all_examples().items():
            parse = self.parsed(make, example.text)
            assert all(isinstance(call, ToolCall) for call in parse.calls), "parse gives ToolCall"
            calls = [(call.name, _value(call.arguments)) for call in parse.calls]
            want = [tuple(call) for call in example.calls]
            assert calls == want, f"{name}: {example.text!r}\n  has the calls {want!r}\n  and gives     {calls!r}"
            assert parse.content == example.content, (
                f"{name}: {example.text!r}\n  has the content {example.content!r}\n  and gives       {parse.content!r}"
            )

    def test_streams_give_what_the_whole_text_gives_at_every_cut(self, make: Any) -> None:
        for example in self.all_examples().values():
            for pieces in cuts(example.text):
                self.assert_streams_alike(make, example.text, pieces)

    def test_streams_give_what_the_whole_text_gives_in_every_chunking_of_the_markers(self, make: Any) -> None:
        text = f"So. {self.write([('add', json.dumps({'a': 1}))])}"
        for marker in dict.fromkeys(self.markers):
            for pieces in chunkings(text, marker):
                self.assert_streams_alike(make, text, pieces)

    def test_tools_are_taken_as_requests_give_them(self, make: Any) -> None:
        """Without parameters or a description, with fields that nobody asked for, and of unknown names."""
        bare = {"type": "function", "function": {"name": "add"}}
        full = {"type": "function", "function": {"name": "add", "description": "+", "parameters": None, "strict": True}}
        text = self.write([("add", '{"a": 1}')])
        want = self.plain(self.parsed(make, text))
        for tools in ([bare], [full], [bare, full] * 20):
            got = self.told(f"a parser for {tools!r:.200}", lambda t=tools: make(tools=t).parse(text))  # type: ignore[misc]
            assert self.plain(got) == want, f"with the tools {tools!r:.200}: {got} instead of {want}"

    def test_streams_of_tokens_give_what_the_whole_text_gives(self, make: Any, tokenizers: Any) -> None:
        for example in self.all_examples().values():
            for how, tokenizer, pieces in self.in_tokens(example.text, make, tokenizers):
                self.assert_streams_alike(lambda t=tokenizer: make(t), example.text, pieces, how)

    def test_text_before_and_after_calls_is_content(self, make: Any) -> None:
        calls = [("add", '{"a": 1}'), ("add", '{"a": 2}')]
        before, after = "Let me look that up.\n", "\nNow wait for it."
        text = before + self.write(calls)
        if "text after calls" not in self.cannot:
            text += after
        else:
            after = ""
        parse = make().parse(text)
        assert len(parse.calls) == 2, f"two calls are in {text!r}, and {len(parse.calls)} were found"
        assert parse.content.split() == (before + after).split(), f"of {text!r}"
        for pieces in cuts(text):
            self.assert_streams_alike(make, text, pieces)

    def test_text_without_calls_is_content_unchanged(self, make: Any) -> None:
        texts = [
            "",
            " \n",
            "Hello.\n\n",
            '  a < b && c[0] > {d} \\ "e"',
            "你好 👋🏽",
            '{"name": "add", "arguments": {}}',
        ]
        texts += [f"It begins {m[:k]} or {m[:k]}{m[0]}" for m in self.markers for k in range(1, len(m))]
        texts += [m[:k] for m in self.markers for k in range(1, len(m))]
        for text in texts:
            got = self.plain(self.parsed(make, text))
            assert got == (text, []), f"{text!r} has no call in it, and becomes {got!r}"
            for pieces in cuts(text):
                self.assert_streams_alike(make, text, pieces)

    def test_arguments_are_given_before_they_are_whole(self, make: Any) -> None:
        self.needs("streamed arguments")
        text = self.write([("write", json.dumps({"text": "word " * 100}))])
        parser = make()
        given = sum(len(call.arguments) for c in text[: len(text) // 2] for call in parser.feed(c, []).calls)
        assert given > len(text) // 4, f"after half of the text {given} characters of the arguments were out"

    def test_parsers_of_several_requests_do_not_meet(self, make: Any) -> None:
        first, second = (self.write([("add", json.dumps({"a": word}))]) for word in ("left", "right"))
        one, other = make(), make()
        parts: tuple[list[ToolParse], list[ToolParse]] = ([], [])
        for a, b in zip(first.ljust(len(second)), second.ljust(len(first)), strict=True):
            parts[0].append(one.feed(a, []))
            parts[1].append(other.feed(b, []))
        parts[0].append(one.finish())
        parts[1].append(other.finish())
        for word, found in zip(("left", "right"), parts, strict=True):
            joined = "".join(call.arguments for part in found for call in part.calls)
            assert joined.replace(" ", "") == f'{{"a":"{word}"}}', (
                f"of two requests at a time one called with {word!r} and got {joined!r}: state is the request's own"
            )


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return f"no JSON: {arguments}"
