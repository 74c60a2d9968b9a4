"""The kit for grammar backends. docs/conformance.md says how to use it. Longer than others: one class, many tests."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from vllm_core.engine.grammar_apart import compiler_of
from vllm_core.interfaces.grammar import Grammar, GrammarSpec, Vocabulary
from vllm_core.interfaces.queries import GrammarQuery
from vllm_core.plugin import load_target
from vllm_core.plugins import Decision, Selector, load_catalog, read_policy
from vllm_core.testing.grammar_cases import BAD, CASES, RUNAWAY, GrammarCase
from vllm_core.testing.grammar_keywords import KEYWORDS
from vllm_core.testing.grammar_states import Backends, GrammarStates
from vllm_core.testing.grammar_vocabularies import segmentations, vocabularies
from vllm_core.testing.grammar_walk import allowed, feed, fill, walk
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light

__all__ = ["GrammarConformance"]

WALKS = 12  # of each case and vocabulary
COMPILE_SECONDS, STEP_SECONDS = 1.0, 0.25  # of this machine's processor


class GrammarConformance(GrammarStates, Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    backend   as users write it in structured_outputs_config
    kinds     those it offers
    cases     further specifications, by name
    narrower  name of a case -> which right texts, but for the first, it does not allow; what it allows is right
    cannot    name of a case, or of a bad or runaway specification, or what else one may expect -> why not; printed
              after every run. A case that is named must be refused with a ``ValueError``.
    """

    kind = "grammar"
    hook = "grammar_backend"
    subject = "backend"

    backend: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("json_schema", "json_object", "regex", "choice", "ebnf", "structural_tag")
    cases: ClassVar[Mapping[str, GrammarCase]] = {}
    narrower: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def limits(cls) -> Mapping[str, str]:
        return {**cls.cannot, **cls.narrower}

    # ---- the plugin

    @pytest.fixture(scope="class")
    @classmethod
    def decision(cls) -> Decision:
        """The backend as an engine finds it, by name."""
        return cls.ask(cls.kinds[0])

    @classmethod
    def ask(cls, kind: str) -> Decision:
        selector = Selector(load_catalog(read_policy({})))
        return selector.choose("grammar_backend", GrammarQuery(kind=kind, vocab_size=300), cls.backend)

    @pytest.fixture(scope="class")
    @classmethod
    def backends(cls, decision: Decision) -> Backends:
        """By vocabulary: what compiles, in this process and without a limit of time."""
        found = {}
        for name, vocabulary in vocabularies().items():
            made = decision.load()(vocabulary, dict(decision.offer.options))
            found[name] = (vocabulary, made.compile)
        return found

    def all_cases(self) -> dict[str, GrammarCase]:
        """Those that it can do."""
        return {
            name: case
            for name, case in {**CASES, **self.cases}.items()
            if case.spec.kind in self.kinds and name not in self.cannot
        }

    def kinds_of(self, specs: Mapping[str, GrammarSpec]) -> list[str]:
        return [kind for kind in specs if kind in self.kinds]

    def good(self, title: str, case: GrammarCase) -> tuple[str, ...]:
        """Right texts that it allows."""
        return case.good[:1] if title in self.narrower else case.good

    def test_it_offers_its_kinds_and_refuses_others(self, decision: Decision) -> None:
        for kind in self.kinds:
            assert self.ask(kind).offer.target == decision.offer.target
        with pytest.raises(Exception, match="poem"):
            self.ask("poem")

    def test_the_plugin_module_imports_without_torch(self, decision: Decision) -> None:
        assert_imports_light(decision.offer.target.partition(".")[0])

    def test_what_it_cannot_do_is_refused(self, backends: Backends) -> None:
        for name in self.cannot:
            case = {**CASES, **self.cases}.get(name)
            if case is not None:
                for _, make in backends.values():
                    with pytest.raises(ValueError, match=r"\S"):
                        make(case.spec)

    # ---- what is allowed

    def test_every_text_that_a_walk_through_the_masks_gives_is_right(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                compiled, finished = make(case.spec), 0
                for seed in range(WALKS):
                    text = walk(compiled.start(), vocabulary, random.Random(seed))
                    finished += text is not None
                    if text is not None:
                        assert case.right(text), f"{title} ({name}): a walk gave {text!r}"
                assert finished or not case.ends, f"{title} ({name}): no walk came to an end"

    def test_every_right_text_is_accepted_however_it_is_cut(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                compiled = make(case.spec)
                for text in self.good(title, case):
                    assert case.right(text), f"{title}: the case calls {text!r} good, and it is not"
                    for ids in segmentations(vocabulary, text):
                        where = f"{title} ({name}): {text!r} as {ids}"
                        grammar = compiled.start()
                        taken = feed(grammar, vocabulary, ids)
                        assert taken == len(ids), f"{where}: stops at {taken}"
                        stops = {*vocabulary.stop_ids}
                        assert stops <= allowed(grammar, vocabulary), f"{where}: may not end"
                        assert grammar.accept([vocabulary.stop_ids[-1]]) == 1, f"{where}: does not end"
                        assert grammar.finished, where
                        assert grammar.accept(ids[:1] or [0]) == 0, f"{where}: goes on behind its end"

    def test_no_wrong_text_is_accepted(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                compiled = make(case.spec)
                for text in case.bad:
                    for ids in segmentations(vocabulary, text):
                        grammar = compiled.start()
                        if feed(grammar, vocabulary, ids) == len(ids):
                            where = f"{title} ({name}): {text!r} as {ids} may end"
                            assert not allowed(grammar, vocabulary) & {*vocabulary.stop_ids}, where
                            assert grammar.accept([vocabulary.stop_ids[0]]) == 0, where
                            assert not grammar.finished, where

    def test_masks_and_what_is_accepted_agree_for_every_token(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title in ("an object", "characters of several bytes", "choices"):
                case = self.all_cases().get(title)
                if case is None:
                    continue
                for ids in segmentations(vocabulary, case.good[0]):
                    for end in (0, len(ids) // 2, len(ids)):
                        grammar = make(case.spec).start()
                        grammar.accept(ids[:end])
                        may = allowed(grammar, vocabulary)
                        for token in range(0, vocabulary.size, 1 if end else 7):
                            taken = grammar.accept([token])
                            where = f"{title} ({name}) behind {ids[:end]}: token {token}"
                            assert taken == (token in may), (
                                f"{where} is {'not ' * (taken == 0)}accepted against its mask"
                            )
                            grammar.rollback(taken)

    def test_every_keyword_of_a_schema_is_heeded_or_refused(self, backends: Backends) -> None:
        vocabulary, make = backends["byte level"]
        for schema, good, bad in KEYWORDS if "json_schema" in self.kinds else ():
            try:
                compiled = make(GrammarSpec(kind="json_schema", text=json.dumps(schema)))
            except ValueError:
                continue
            for text in bad:
                ids = next(segmentations(vocabulary, text))
                grammar = compiled.start()
                ended = feed(grammar, vocabulary, ids) == len(ids) and grammar.accept(vocabulary.stop_ids[:1]) == 1
                assert not ended, f"{schema}: {text} is allowed"
            taken = [text for text in good if self._takes(compiled, vocabulary, text)]
            assert taken or not good, f"{schema}: none of {good} is allowed"

    @staticmethod
    def _takes(compiled: Any, vocabulary: Vocabulary, text: str) -> bool:
        ids = next(segmentations(vocabulary, text))
        return compiled.start().accept([*ids, vocabulary.stop_ids[0]]) == len(ids) + 1

    # ---- limits

    def test_what_is_wrong_is_refused_in_words(self, backends: Backends) -> None:
        _, make = backends["byte level"]
        for title, spec in BAD.items():
            said = None
            try:
                make(spec)
            except ValueError as error:
                said = str(error)
            assert said is not None or title in self.cannot, f"{title} was compiled: {spec.text}"
            assert said is None or said.strip(), f"{title}: refused without a reason"

    def test_what_would_run_away_ends_in_time(self, decision: Decision, backends: Backends) -> None:
        if decision.load().apart:
            pytest.skip("it compiles in a process that the core ends")
        self.assert_ends_in_time(backends)

    def assert_ends_in_time(self, backends: Backends) -> None:
        vocabulary, make = backends["byte level"]
        for title, spec in RUNAWAY.items():
            if spec.kind not in self.kinds or title in self.cannot:
                continue
            began = time.thread_time()
            try:
                grammar: Grammar | None = make(spec).start()
            except ValueError:
                grammar = None
            took = time.thread_time() - began
            assert took < COMPILE_SECONDS, f"{title}: compiled for {took:.1f} s"
            dice = random.Random(0)
            for step in range(30 if grammar is not None else 0):
                assert grammar is not None
                began = time.thread_time()
                try:
                    may = allowed(grammar, vocabulary) - {*vocabulary.stop_ids}
                    if not may or grammar.accept([dice.choice(sorted(may))]) != 1:
                        break
                except ValueError:  # a limit of its own
                    break
                took = time.thread_time() - began
                assert took < STEP_SECONDS, f"{title}: mask {step} took {took:.2f} s"

    def test_several_threads_may_compile(self, backends: Backends) -> None:
        vocabulary, make = backends["byte fallback"]
        cases = list(self.all_cases().values())
        alone = [fill(make(case.spec).start(), vocabulary) for case in cases]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda case: fill(make(case.spec).start(), vocabulary), cases * 3))
        assert all((mask == alone[i % len(alone)]).all() for i, mask in enumerate(together))

    def test_what_was_exported_works_as_what_was_compiled(self, decision: Decision, backends: Backends) -> None:
        target: Any = decision.load()
        if not target.apart:
            pytest.skip("it compiles where it is used")
        for name, (vocabulary, make) in backends.items():
            here = target(vocabulary, dict(decision.offer.options))
            there = load_target(compiler_of(decision.offer.target))(vocabulary, dict(decision.offer.options))
            for title, case in self.all_cases().items():
                data = there.export(case.spec)
                assert isinstance(data, bytes)
                mine, grammar = here.restore(data).start(), make(case.spec).start()
                for token in next(segmentations(vocabulary, case.good[0])):
                    assert (fill(mine, vocabulary) == fill(grammar, vocabulary)).all(), f"{title} ({name})"
                    assert mine.accept([token]) == grammar.accept([token])
