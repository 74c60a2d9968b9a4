"""What a tool parser makes of texts that are broken, of garbage, and of long ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, ClassVar

from vllm_core.interfaces.tool_parser import ToolParse
from vllm_core.testing.cuts import Pieces, in_two_and_in_characters, mutants, noise
from vllm_core.testing.parser import ParserConformance, words

__all__ = ["ToolBadTexts"]


class ToolBadTexts(ParserConformance):
    """A part of ``ToolParserConformance``."""

    markup: ClassVar[str] = ""

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        raise NotImplementedError

    def parsed(self, make: Any, text: str) -> ToolParse:
        raise NotImplementedError

    def assert_streams_alike(self, make: Any, text: str, pieces: Pieces, how: str = "") -> None:
        raise NotImplementedError

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
            parse = self.parsed(make, text)
            said = " ".join([parse.content, *(f"{call.name} {call.arguments}" for call in parse.calls)])
            # Half a word at a place where the text was cut is still there, if as part of another.
            lost = [word for word in words(text) - words(said) if word not in ours and word not in said]
            assert not lost, f"{', '.join(lost)} of {text!r} is neither in the content nor in a call of {parse}"

    def test_arguments_are_json_or_plainly_unfinished(self, make: Any) -> None:
        for text in [*self.texts(), *self.bad_texts()]:
            for call in self.parsed(make, text).calls:
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
