"""What the kit for grammar backends tries of the state of an output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from vllm_core.interfaces.grammar import CompiledGrammar, GrammarSpec, Vocabulary
from vllm_core.testing.grammar_cases import GrammarCase
from vllm_core.testing.grammar_vocabularies import segmentations
from vllm_core.testing.grammar_walk import allowed, assert_mask, fill

__all__ = ["Backends", "GrammarStates"]

Backends = Mapping[str, tuple[Vocabulary, Callable[[GrammarSpec], CompiledGrammar]]]
"""By the name of the vocabulary."""


class GrammarStates:
    """A part of ``GrammarConformance``."""

    def all_cases(self) -> dict[str, GrammarCase]:
        raise NotImplementedError

    def good(self, title: str, case: GrammarCase) -> tuple[str, ...]:
        raise NotImplementedError

    def test_what_was_taken_back_was_never_accepted(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                compiled = make(case.spec)
                for text in self.good(title, case):
                    ids = [*list(segmentations(vocabulary, text))[2], vocabulary.stop_ids[0]]
                    masks, grammar = [], compiled.start()
                    for token in ids:
                        masks.append(fill(grammar, vocabulary))
                        assert grammar.accept([token]) == 1
                    for count in range(1, len(ids) + 1):
                        where = f"{title} ({name}): {text!r}, {count} ids taken back"
                        grammar.rollback(count)
                        assert not grammar.finished, where
                        assert (fill(grammar, vocabulary) == masks[len(ids) - count]).all(), where
                        assert grammar.accept(ids[len(ids) - count :]) == count, where
                        assert grammar.finished, where

    def test_256_ids_can_be_taken_back_at_once(self, backends: Backends) -> None:
        """As many as a step may guess; those before them stay."""
        text, before = "ab" * 150, 44
        specs = {
            "choice": GrammarSpec(kind="choice", text=json.dumps([text, "b"])),
            "regex": GrammarSpec(kind="regex", text="(ab)*"),
            "ebnf": GrammarSpec(kind="ebnf", text='root ::= ("ab")*'),
        }
        for name, (vocabulary, make) in backends.items():
            for kind in self.kinds_of(specs):
                ids = next(segmentations(vocabulary, text))
                grammar, other = make(specs[kind]).start(), make(specs[kind]).start()
                assert grammar.accept(ids) == len(ids), f"{kind} ({name}): {text[:20]!r}... is not accepted"
                other.accept(ids[:before])
                grammar.rollback(len(ids) - before)
                where = f"{kind} ({name}): {len(ids) - before} of {len(ids)} ids were taken back"
                assert (fill(grammar, vocabulary) == fill(other, vocabulary)).all(), f"{where}, and the mask is another"
                assert grammar.accept(ids[before:]) == len(ids) - before, f"{where}, and are not accepted again"

    def kinds_of(self, specs: Mapping[str, GrammarSpec]) -> list[str]:
        """Those of the specifications that the backend can do."""
        raise NotImplementedError

    def test_accepting_stops_at_the_first_id_that_is_not_allowed(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                ids = next(segmentations(vocabulary, max(self.good(title, case), key=len)))
                half = ids[: len(ids) // 2]
                grammar, other = make(case.spec).start(), make(case.spec).start()
                other.accept(half)
                wrong = sorted({*range(vocabulary.size)} - allowed(other, vocabulary))
                if wrong:
                    where = f"{title} ({name}): {half} and then {wrong[0]}"
                    assert grammar.accept([*half, wrong[0], *ids[len(half) :]]) == len(half), where
                    assert (fill(grammar, vocabulary) == fill(other, vocabulary)).all(), f"{where}: another state"
                    grammar.rollback(len(half))
                    assert (fill(grammar, vocabulary) == fill(make(case.spec).start(), vocabulary)).all(), where

    def test_outputs_of_one_specification_do_not_meet(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                compiled = make(case.spec)
                before = fill(compiled.start(), vocabulary)
                ids = next(segmentations(vocabulary, max(self.good(title, case), key=len)))
                one, two = compiled.start(), compiled.start()
                one.accept(ids)
                assert (fill(two, vocabulary) == before).all(), (
                    f"{title} ({name}): one output's ids are in another's state"
                )
                assert two.accept(ids) == len(ids)

    def test_a_mask_is_written_whole_and_nothing_beside_it(self, backends: Backends) -> None:
        for name, (vocabulary, make) in backends.items():
            for title, case in self.all_cases().items():
                grammar = make(case.spec).start()
                for ids in ([], next(segmentations(vocabulary, case.good[0]))[:1]):
                    grammar.accept(ids)
                    assert_mask(grammar, vocabulary, f"{title} ({name})")
