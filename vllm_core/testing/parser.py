"""What the conformance of tool parsers and of reasoning parsers share. docs/conformance.md says how to use it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from vllm_core.interfaces.queries import ParserQuery
from vllm_core.plugins import Decision, Selector, load_catalog, read_policy
from vllm_core.testing.asked import Asked
from vllm_core.testing.cuts import Pieces, TinyTokenizer, by_tokens, tiny_tokenizers, work
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light

__all__ = ["ParserConformance", "words"]

SIZE = 120  # repetitions of the shorter text whose work is counted; the longer one has four times as many
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|[a-z\"\\/])")
_WORD = re.compile(r"[A-Za-z0-9]{3,}|[^\x00-\x7f\s]")


def words(text: str) -> Counter[str]:
    """What must not get lost of a text: words, and characters beyond ASCII but spaces. JSON may escape the latter."""
    return Counter(_WORD.findall(_ESCAPE.sub(" ", text)))


class ParserConformance(Conformance):
    """What both kinds have; see the subclasses."""

    subject = "parser"

    parser: ClassVar[str]
    markers: ClassVar[Sequence[str]]
    templates: ClassVar[Sequence[str]] = ()
    other_templates: ClassVar[Sequence[str]] = ()
    architectures: ClassVar[Sequence[str]] = ()
    plugin_settings: ClassVar[Mapping[str, Any]] = {}

    # ---- what subclasses say

    def usual(self, make: Callable[..., Any], tokenizer: Any) -> Any:
        """A parser for a request with that tokenizer."""
        raise NotImplementedError

    def texts(self) -> list[str]:
        """Texts whose tokens a vocabulary is learnt from."""
        raise NotImplementedError

    # ---- the plugin

    @pytest.fixture(scope="class")
    @classmethod
    def decision(cls) -> Decision:
        """The parser as an engine finds it, by name."""
        return cls.ask(cls.parser)

    @classmethod
    def ask(cls, name: str, template: str = "") -> Decision:
        catalog = Asked(cls.hook, cls.parser, settings=cls.plugin_settings).catalog
        query = ParserQuery(name=name, architectures=tuple(cls.architectures), chat_template=template)
        return Selector(catalog).choose(cls.hook, query, name or None)

    @pytest.fixture(scope="class")
    @classmethod
    def tokenizers(cls) -> dict[str, TinyTokenizer]:
        return tiny_tokenizers(cls().texts(), cls.markers)

    @pytest.fixture(scope="class")
    @classmethod
    def tokenizer(cls, tokenizers: dict[str, TinyTokenizer]) -> TinyTokenizer:
        return tokenizers["markers as tokens"]

    def test_its_hook_offers_it_by_name_and_where_the_template_leaves_no_doubt(self, decision: Decision) -> None:
        assert decision.offer.name == self.parser
        for template in self.templates:
            assert self.ask("", template).offer.name == self.parser, f"not offered for {template!r:.80}"
        for template in ("", "{{ messages }}", *self.other_templates):
            found = self.ask("", template)
            assert found.offer.name != self.parser, f"offered for {template!r:.80}"

    def test_the_plugin_module_imports_without_torch(self, decision: Decision) -> None:
        catalog = load_catalog(read_policy({}))
        assert_imports_light(next(p.module for p in catalog.plugins if p.name == decision.provided.plugin))

    def test_preparing_a_request_keeps_its_other_options(self, make: Any, tokenizers: Any) -> None:
        given = {"skip_special_tokens": True, "temperature": 0.5, "stop": ["x"], "max_tokens": None}
        for name, tokenizer in tokenizers.items():
            options = dict(given)
            found = self.usual(make, tokenizer).prepare(options)
            assert isinstance(found, dict), f"{name}: prepare gives {type(found).__name__}, not the options to use"
            assert options == given, f"{name}: prepare changes the options that it is given; it gives changed ones back"
            others = {k: v for k, v in found.items() if k in given and k != "skip_special_tokens"}
            want = {k: v for k, v in given.items() if k != "skip_special_tokens"}
            assert others == want, f"{name}: of the options {want} there are {others} left"

    # ---- tools of the tests

    @staticmethod
    def told(what: str, call: Callable[[], Any]) -> Any:
        """What ``call`` gives. A parser that raises is told over which text."""
        __tracebackhide__ = True
        try:
            return call()
        except Exception as error:
            raise AssertionError(
                f"{what} raises {type(error).__name__}: {error}\n"
                "  instead whatever a model writes is content where it is nothing else"
            ) from error

    def in_tokens(
        self, text: str, make: Callable[[Any], Any], tokenizers: Mapping[str, Any]
    ) -> list[tuple[str, Any, Pieces]]:
        """The text as it comes out of an engine, run as the parser's ``prepare`` wants it: (how, tokenizer, pieces)."""
        found = []
        for name, tokenizer in tokenizers.items():
            options = make(tokenizer).prepare({"skip_special_tokens": True})
            for at_once in (1, 3):
                pieces = by_tokens(text, tokenizer, at_once, options["skip_special_tokens"])
                assert "".join(piece for piece, _ in pieces) == text, (
                    f"{name}: with options {options} the parser never sees its markers.\n"
                    "  instead prepare() returns skip_special_tokens False where they are special tokens"
                )
                found.append((f"{name}, {at_once} at once", tokenizer, pieces))
        return found

    @staticmethod
    def assert_linear(what: str, text: Callable[[int], str], make: Callable[[], Any]) -> None:
        """Four times the text makes about four times the work, in small pieces."""

        def run(pieces: Pieces) -> None:
            parser = make()
            for piece, ids in pieces:
                parser.feed(piece, ids)
            parser.finish()

        totals = []
        for size in (SIZE, 4 * SIZE):
            whole = text(size)
            pieces: Pieces = [(whole[i : i + 7], []) for i in range(0, len(whole), 7)]
            totals.append((len(whole), work(lambda pieces=pieces: run(pieces))))  # type: ignore[misc]
        (n, small), (m, large) = totals
        assert large / small < 1.5 * m / n, (
            f"{what}: {n} characters make work of {small}, and {m} characters of {large}: more than in proportion.\n"
            "  instead keep what is open, and look at each piece once"
        )
