"""`ReasoningParserConformance`: the tests that every reasoning parser runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.interfaces.reasoning_parser import ReasoningParse
from vllm_core.plugins import Decision
from vllm_core.testing.cuts import Pieces, TinyTokenizer, chunkings, cuts, in_two_and_in_characters, mutants, noise
from vllm_core.testing.parser import ParserConformance, words

__all__ = ["ReasoningExample", "ReasoningParserConformance"]


@attrs.frozen
class ReasoningExample:
    """A text of a model, the end of its prompt, and what is in the text."""

    text: str
    reasoning: str = ""
    content: str = ""
    prompt: str = attrs.field(default="", kw_only=True)  # "<|turn|>" in it is a special token
    options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)  # of the chat template
    inside: bool | None = attrs.field(default=None, kw_only=True)  # what ``starts_inside`` says; None: not looked at


class ReasoningParserConformance(ParserConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    parser      its name, as in --reasoning-parser
    markers     what the model writes around the reasoning, the one that ends it last
    examples    name -> ``ReasoningExample``: at least one with reasoning and an answer, one without an
                answer, and one without reasoning
    templates, other_templates   chat templates for which it must and must not offer unnamed
    cannot      what one may expect and it does not do -> why; printed after every run
    """

    kind = "reasoning-parser"
    hook = "reasoning_parser"
    examples: ClassVar[Mapping[str, ReasoningExample]]

    def texts(self) -> list[str]:
        return [example.prompt + example.text for example in self.examples.values()]

    @pytest.fixture
    def make(self, decision: Decision, tokenizer: TinyTokenizer) -> Any:
        """``make(example, tokenizer)``: a parser that has seen the prompt."""
        target, more = decision.load(), decision.offer.options

        def made(example: ReasoningExample, other: Any = None) -> Any:
            chosen = other or tokenizer
            parser = target(chosen, dict(example.options), **more)
            inside = parser.starts_inside(chosen.encode(example.prompt, add_special_tokens=False))
            assert example.inside in (None, inside), f"starts_inside gives {inside} after {example.prompt!r}"
            return parser

        return made

    def usual(self, make: Any, tokenizer: Any) -> Any:
        return make(next(iter(self.examples.values())), tokenizer)

    @staticmethod
    def stream(parser: Any, pieces: Pieces) -> ReasoningParse:
        parts = [parser.feed(text, ids) for text, ids in pieces]
        parts.append(parser.finish())
        after = False
        for part in parts:
            assert isinstance(part, ReasoningParse), f"feed and finish give ReasoningParse, not {part!r}"
            assert not (after and part.reasoning), f"reasoning {part.reasoning!r} comes after the answer has begun"
            after = after or bool(part.content.strip())
        return ReasoningParse(
            reasoning="".join(part.reasoning for part in parts), content="".join(part.content for part in parts)
        )

    def assert_streams_alike(self, make: Any, example: ReasoningExample, pieces: Pieces, tokenizer: Any = None) -> None:
        __tracebackhide__ = True
        shown = [piece for piece, _ in pieces]
        want = self.parsed(make, example, tokenizer)
        got = self.told(f"the stream {shown!r:.300}", lambda: self.stream(make(example, tokenizer), pieces))
        assert got == want, f"streamed as {shown!r:.300}\n  gives {got!r:.400}\n  and whole {want!r:.400}"

    def parsed(self, make: Any, example: ReasoningExample, tokenizer: Any = None) -> ReasoningParse:
        __tracebackhide__ = True
        what = f"parse of {example.text!r:.400} after {example.prompt!r:.100}"
        return self.told(what, lambda: make(example, tokenizer).parse(example.text))

    # ---- well-formed texts

    def test_it_tells_reasoning_from_the_answer(self, make: Any, tokenizers: Any) -> None:
        for name, example in self.examples.items():
            for kind, tokenizer in tokenizers.items():
                found = make(example, tokenizer).parse(example.text)
                want = ReasoningParse(reasoning=example.reasoning, content=example.content)
                assert found == want, (
                    f"{name}, {kind}: {example.text!r} after {example.prompt!r}\n  is    {want}\n  gives {found}"
                )
        said = [(bool(example.reasoning), bool(example.content)) for example in self.examples.values()]
        assert {(True, True), (True, False), (False, True)} <= set(said), "examples lack a kind: see the docstring"

    def test_streams_give_what_the_whole_text_gives_at_every_cut(self, make: Any) -> None:
        for example in self.examples.values():
            for pieces in cuts(example.text):
                self.assert_streams_alike(make, example, pieces)

    def test_streams_give_what_the_whole_text_gives_in_every_chunking_of_the_markers(self, make: Any) -> None:
        for example in self.examples.values():
            for marker in dict.fromkeys(self.markers):
                for pieces in chunkings(example.text, marker):
                    self.assert_streams_alike(make, example, pieces)

    def test_streams_of_tokens_give_what_the_whole_text_gives(self, make: Any, tokenizers: Any) -> None:
        for example in self.examples.values():
            prepared = lambda t, e=example: make(e, t)  # noqa: E731
            for _, tokenizer, pieces in self.in_tokens(example.text, prepared, tokenizers):
                self.assert_streams_alike(make, example, pieces, tokenizer)

    def test_ended_says_so_when_the_answer_begins_and_not_before(self, make: Any, tokenizers: Any) -> None:
        for name, example in self.examples.items():
            for kind, tokenizer in tokenizers.items():
                parser = make(example, tokenizer)
                ids = tokenizer.encode(example.text, add_special_tokens=False)
                ended = False
                for n in range(1, len(ids) + 1):
                    before, ended = ended, parser.ended(ids[:n])
                    here = f"{name}, {kind}: after {tokenizer.decode(ids[:n], skip_special_tokens=False)!r}"
                    assert ended or not before, f"{here}: reasoning had ended, and goes on again"
                    text = tokenizer.decode(ids[:n], skip_special_tokens=False)
                    if "\ufffd" in text[-1:]:
                        continue
                    found = make(example, tokenizer).parse(text)
                    if ended and example.reasoning:
                        assert found.reasoning == example.reasoning, f"{here}: it is said to have ended too early"
                    if found.content.strip() and not any(m.startswith(found.content.strip()) for m in self.markers):
                        assert ended, f"{here}: {found.content!r} is content, and the reasoning has not ended"
                assert ended or not example.content.strip(), f"{name}, {kind}: it has not ended"

    # ---- texts that are not

    def bad_texts(self) -> list[str]:
        parts = [*self.markers, "\n", "other "]
        texts = [example.text for example in self.examples.values()]
        found = [text[:at] for text in texts for at in range(0, len(text), max(1, len(text) // 40))]
        found += [mutant for text in texts for mutant in mutants(text, 20, parts)]
        return found + list(noise(200, parts))

    def starts(self) -> list[ReasoningExample]:
        """An example for each prompt and options."""
        return list({(e.prompt, tuple(e.options.items())): e for e in self.examples.values()}.values())

    def bad(self) -> list[ReasoningExample]:
        """Every bad text, after one of the prompts."""
        starts = self.starts()
        return [attrs.evolve(starts[i % len(starts)], text=text) for i, text in enumerate(self.bad_texts())]

    def test_no_text_is_too_bad_to_parse_or_streams_otherwise(self, make: Any) -> None:
        for i, example in enumerate(self.bad()):
            at = random.Random(i).randint(0, len(example.text))
            for pieces in in_two_and_in_characters(example.text, at):
                self.assert_streams_alike(make, example, pieces)

    def test_no_text_gets_lost(self, make: Any) -> None:
        ours = {word for marker in self.markers for word in words(marker)}
        for example in [*self.examples.values(), *self.bad()]:
            found = self.parsed(make, example)
            said = f"{found.reasoning} {found.content}"
            lost = [w for w in words(example.text) - words(said) if w not in ours and w not in said]
            assert not lost, f"{', '.join(lost)} of {example.text!r} is in neither part of {found}"

    def test_parsers_of_several_requests_do_not_meet(self, make: Any) -> None:
        for example in self.examples.values():
            one, other = make(example), make(example)
            other.feed(example.text, [])
            got, want = self.stream(one, [(c, []) for c in example.text]), make(example).parse(example.text)
            assert got == want, f"beside another request {got} instead of {want}: state is the request's own"

    def test_the_work_grows_with_the_text_and_no_faster(self, make: Any) -> None:
        end = self.markers[-1]
        cases: dict[str, Callable[[str, int], str]] = {
            "a long text": lambda text, n: text + " some words" * n,
            "half a marker, again and again": lambda text, n: text + (end[:-1] + " ") * n,
            "a marker, again and again": lambda text, n: text + end * n,
            "white space": lambda text, n: " \n" * (5 * n),
        }
        for example in self.starts():
            for what, text in cases.items():
                self.assert_linear(what, partial(text, example.text), partial(make, example))

    def test_asking_whether_it_has_ended_looks_at_each_token_a_few_times(
        self, make: Any, tokenizer: TinyTokenizer
    ) -> None:
        for name, example in self.examples.items():
            for text in (example.text + " some words" * 300, " \n" * 300):
                ids = tokenizer.encode(text, add_special_tokens=False)
                parser, looked = make(example), 0
                for n in range(1, len(ids) + 1):
                    prefix = CountedIds(ids[:n])
                    parser.ended(prefix)
                    looked += prefix.looked
                assert looked < 60 * len(ids), f"{name}: {len(ids)} tokens were looked at {looked} times"


class CountedIds(Sequence[int]):
    """Token ids that count how many of them are looked at."""

    def __init__(self, ids: list[int]) -> None:
        self._ids, self.looked = ids, 0

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, at: Any) -> Any:
        found = self._ids[at]
        self.looked += len(found) if isinstance(found, list) else 1
        return found

    def __iter__(self) -> Iterator[int]:
        self.looked += len(self._ids)
        return iter(self._ids)

    def __contains__(self, token: object) -> bool:
        self.looked += len(self._ids)
        return token in self._ids
