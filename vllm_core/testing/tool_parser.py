"""`ToolParserConformance`: the tests that every tool parser runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.interfaces.tool_parser import ToolCall, ToolDelta, ToolParse
from vllm_core.plugins import Decision
from vllm_core.testing.cuts import Pieces, TinyTokenizer, cuts, in_two_and_in_characters, mutants, noise
from vllm_core.testing.parser import ParserConformance, words
from vllm_core.testing.tool_examples import STANDARD, TOOLS, ToolExample

__all__ = ["ToolExample", "ToolParserConformance"]


class ToolParserConformance(ParserConformance):
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
        target = decision.load()
        return lambda other=None: target(other or tokenizer, list(self.tools))

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
        want, got = self.plain(make().parse(text)), self.plain(self.stream(make(), pieces))
        shown = [piece for piece, _ in pieces]
        assert got == want, (
            f"{how or 'streamed'} as {shown!r:.300}\n  gives {got!r:.400}\n"
            f"  and whole {want!r:.400}\n  of {text!r:.400}"
        )

    # ---- well-formed texts

    def test_it_finds_the_calls_and_the_content(self, make: Any) -> None:
        for name, example in self.all_examples().items():
            parse = make().parse(example.text)
            assert all(isinstance(call, ToolCall) for call in parse.calls), "parse gives ToolCall"
            calls = [(call.name, json.loads(call.arguments)) for call in parse.calls]
            assert calls == [tuple(call) for call in example.calls], f"{name}: {example.text!r}"
            assert parse.content == example.content, f"{name}: content of {example.text!r}"

    def test_streams_give_what_the_whole_text_gives_at_every_cut(self, make: Any) -> None:
        for example in self.all_examples().values():
            for pieces in cuts(example.text):
                self.assert_streams_alike(make, example.text, pieces)

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
        assert len(parse.calls) == 2
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
            assert self.plain(make().parse(text)) == (text, [])
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
            assert json.loads(joined) == {"a": word}

    # ---- texts that are not

    def bad_texts(self) -> list[str]:
        """Broken off, with mistakes, and garbage."""
        texts = self.texts()
        parts = [*self.markers, '"', "{", "}", "\\", "\n", "[", "]", ",", "other "]
        found = [text[:at] for text in texts[:: max(1, len(texts) // 6)] for at in range(len(text))]
        found += [mutant for text in texts for mutant in mutants(text, 8, parts)]
        return found + list(noise(200, [*self.markers, *parts, '{"name": "add", "arguments": {"a": "']))

    def test_no_text_is_too_bad_to_parse_or_streams_otherwise(self, make: Any) -> None:
        for i, text in enumerate(self.bad_texts()):
            rng = random.Random(i)
            at = rng.randint(0, len(text))
            for pieces in in_two_and_in_characters(text, at):
                self.assert_streams_alike(make, text, pieces)

    def test_no_text_gets_lost(self, make: Any) -> None:
        ours = {
            "null",
            "name",
            "arguments",
            *words(self.write([("", "{}")])),
            *words(" ".join([*self.markers, self.markup])),
        }
        for text in [*self.texts(), *self.bad_texts()]:
            parse = make().parse(text)
            said = " ".join([parse.content, *(f"{call.name} {call.arguments}" for call in parse.calls)])
            # Half a word at a place where the text was cut is still there, if as part of another.
            lost = [word for word in words(text) - words(said) if word not in ours and word not in said]
            assert not lost, f"{', '.join(lost)} of {text!r} is neither in the content nor in a call of {parse}"

    def test_arguments_are_json_or_plainly_unfinished(self, make: Any) -> None:
        for text in [*self.texts(), *self.bad_texts()]:
            for call in make().parse(text).calls:
                try:
                    json.loads(call.arguments)
                except ValueError:
                    # A slip in the middle of a finished object would reach the client as if it were a call.
                    assert not _closes(call.arguments), f"{call.arguments!r} of {text!r} looks whole and is no JSON"

    def test_the_work_grows_with_the_text_and_no_faster(self, make: Any) -> None:
        first, empty = self.markers[0], self.write([("add", "{}")])
        inside = self.write([("write", '{"text": "@"}')])
        cases = {
            "an answer without calls": lambda n: "Some words. " * n,
            "a long argument": lambda n: inside.replace("@", "some words " * n),
            "many calls": lambda n: self.write([("add", '{"a": 1}')] * (n // 4)),
            "half a marker, again and again": lambda n: (first[:-1] + " ") * n,
            "a marker, again and again": lambda n: first * n,
            "calls that are none": lambda n: (first + '{"') * n,
            "white space": lambda n: empty + " \n" * (5 * n),
            "deep nesting": lambda n: inside.replace('"@"', "[" * (5 * n)),
        }
        for what, text in cases.items():
            self.assert_linear(what, text, make)


def _closes(text: str) -> bool:
    """Whether brackets outside of strings are all closed."""
    depth, inside, escaped = 0, False, False
    for c in text:
        if inside:
            inside, escaped = escaped or c != '"', c == "\\" and not escaped
        elif c == '"':
            inside = True
        else:
            depth += (c in "{[") - (c in "}]")
    return depth == 0 and not inside
