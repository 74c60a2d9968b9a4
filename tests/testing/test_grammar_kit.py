"""The kit of grammar backends passes a right one and fails wrong ones, in the tests whose names say what is wrong."""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pytest

from tests.grammar.toy import Compiled, State, Toy
from vllm_core.interfaces.grammar import GrammarSpec
from vllm_core.testing import GrammarConformance
from vllm_core.testing.grammar_cases import GrammarCase
from vllm_core.testing.grammar_vocabularies import segmentations, vocabularies
from vllm_core.testing.grammar_walk import walk

PLUGIN = ("test_it_offers", "test_the_plugin_module", "test_what_was_exported", "test_what_would_run_away")
TEXTS = ("", "x", "yes", "yes no", "日本", "é", "ab ab")


class Kit(GrammarConformance):
    """The toy's texts are those of its choices, so it can be tried on regular expressions as well: of a few texts."""

    kinds = ("choice", "regex")
    cases = {
        "the empty text and others": GrammarCase(
            spec=GrammarSpec(kind="choice", text=json.dumps(TEXTS)),
            good=TEXTS,
            bad=("y", "yesno", "ab", "日", " "),
            right=lambda text: text in TEXTS,
        )
    }
    cannot = dict.fromkeys(
        ("digits", "alternatives", "characters of several bytes", "the empty text", "an open group"),
        "the toy has choices only",
    )

    def all_cases(self):
        return {name: case for name, case in super().all_cases().items() if case.spec.kind == "choice"}

    def kinds_of(self, specs):
        return ["choice"]


class Right(Toy):
    def compile(self, spec):
        if spec.kind != "choice":
            raise ValueError(f"the toy has no {spec.kind}")
        return super().compile(spec)


def failing(backend):
    """The kit's tests that fail, whatever they raise."""
    given = {"backends": {name: (v, backend(v, {}).compile) for name, v in vocabularies().items()}, "decision": None}
    failed = []
    for name in dir(Kit):
        if name.startswith("test_") and not name.startswith(PLUGIN):
            test = getattr(Kit(), name)
            wanted = test.__func__.__code__.co_varnames[1 : test.__func__.__code__.co_argcount]
            try:
                test(**{argument: given[argument] for argument in wanted})
            except (Exception, pytest.fail.Exception):  # what a wrong backend raises is its failure
                failed.append(name)
    return failed


WALK = "test_every_text_that_a_walk_through_the_masks_gives_is_right"
GOOD = "test_every_right_text_is_accepted_however_it_is_cut"
BAD = "test_no_wrong_text_is_accepted"
AGREE = "test_masks_and_what_is_accepted_agree_for_every_token"
BACK = "test_what_was_taken_back_was_never_accepted"
MANY = "test_256_ids_can_be_taken_back_at_once"
FIRST = "test_accepting_stops_at_the_first_id_that_is_not_allowed"
MEET = "test_outputs_of_one_specification_do_not_meet"
WHOLE = "test_a_mask_is_written_whole_and_nothing_beside_it"
WORDS = "test_what_is_wrong_is_refused_in_words"
THREADS = "test_several_threads_may_compile"


def test_a_right_backend_passes():
    assert failing(Right) == []


def with_state(state):
    class Made(Compiled):
        def start(self):
            return state(self)

    class Backend(Right):
        def compile(self, spec):
            made = super().compile(spec)
            return Made(made.choices, "", made.vocabulary)

    return Backend


class EndsEarly(State):
    """It may end before the text is whole."""

    def allows(self, token):
        return (token in self.compiled.vocabulary.stop_ids and not self.finished) or super().allows(token)


class NeverEnds(State):
    def allows(self, token):
        return token not in self.compiled.vocabulary.stop_ids and super().allows(token)


class OneEnd(State):
    """It knows the first end of text only."""

    def allows(self, token):
        return token not in self.compiled.vocabulary.stop_ids[1:] and super().allows(token)


class Special(State):
    """Ids without bytes pass."""

    def allows(self, token):
        v = self.compiled.vocabulary
        return (token < v.size and not v.token_bytes[token] and token not in v.stop_ids) or super().allows(token)


class Characters(State):
    """Tokens that end within a character are lost."""

    def allows(self, token):
        vocabulary = self.compiled.vocabulary
        try:
            (self.text + vocabulary.token_bytes[token]).decode()
        except (UnicodeDecodeError, IndexError):
            return False
        return super().allows(token)


class Forgets(State):
    """One id too few is taken back."""

    def rollback(self, count):
        super().rollback(count - 1 if count > 1 else count)


class FewSteps(State):
    """It remembers 200 steps."""

    def rollback(self, count):
        super().rollback(min(count, 200))


class StaysFinished(State):
    """Its end is not taken back."""

    ended = False

    @property
    def finished(self):
        self.ended = self.ended or super().finished
        return self.ended


class GoesOn(State):
    """Behind an id that is not allowed it goes on with the next."""

    def accept(self, ids):
        return sum(super(GoesOn, self).accept([token]) for token in ids)


class AllOrNothing(State):
    def accept(self, ids):
        taken = super().accept(ids)
        if taken < len(ids):
            self.rollback(taken)
        return taken if taken == len(ids) else 0


class SomeWords(State):
    """Words without a bit are not written."""

    def fill(self, mask):
        own = np.zeros_like(mask)
        super().fill(own)
        mask[own != 0] = own[own != 0]


class Beyond(State):
    """The bits behind the last token are set."""

    def fill(self, mask):
        super().fill(mask)
        size = self.compiled.vocabulary.size
        if size % 32:
            mask[-1] |= np.int32(-1 << size % 32)


class Beside(State):
    """It writes a word too many, where there is one."""

    def fill(self, mask):
        super().fill(mask)
        whole = mask.base
        if whole is not None and whole.ndim == 2:
            whole[1, len(mask) :] = 0


class Loose(State):
    """What its masks forbid is accepted."""

    def accept(self, ids):
        for token in ids:
            if not self.allows(token) and (self.finished or token >= 40):
                return super().accept(ids)
            self.ids.append(token)
        return len(ids)


@pytest.mark.parametrize(
    ("state", "tests"),
    [
        (EndsEarly, {WALK, BAD}),
        (NeverEnds, {WALK, GOOD, BACK}),
        (OneEnd, {WALK, GOOD}),
        (Special, {WALK, GOOD}),
        (Characters, {GOOD}),
        (Forgets, {BACK}),
        (FewSteps, {MANY}),
        (StaysFinished, {BACK}),
        (GoesOn, {FIRST}),
        (AllOrNothing, {FIRST}),
        (SomeWords, {WHOLE}),
        (Beyond, {WHOLE}),
        (Beside, {WHOLE}),
        (Loose, {AGREE}),
    ],
)
def test_a_wrong_state_fails(state, tests):
    assert tests <= {*failing(with_state(state))}


def test_outputs_that_share_their_state_fail():
    class Shared(Right):
        def compile(self, spec):
            made = super().compile(spec)
            state = State(made)
            made.start = lambda: state
            return made

    assert MEET in failing(Shared)


def test_a_backend_that_takes_anything_fails():
    class Takes(Right):
        def compile(self, spec):
            return Compiled([b"x"], "", self.vocabulary)

    assert {WORDS, GOOD} <= {*failing(Takes)}


def test_a_backend_that_refuses_with_other_errors_or_without_a_reason_fails():
    class Raises(Right):
        def compile(self, spec):
            if spec.kind != "choice":
                raise KeyError(spec.kind)
            return super().compile(spec)

    class Silent(Right):
        def compile(self, spec):
            if spec.kind != "choice":
                raise ValueError(" ")
            return super().compile(spec)

    assert WORDS in failing(Raises)
    assert WORDS in failing(Silent)


def test_a_backend_that_is_not_fit_for_threads_fails():
    class Racing(Right):
        def compile(self, spec):
            self.now = spec
            time.sleep(0.002)
            return super().compile(self.now)

    assert THREADS in failing(Racing)


@pytest.mark.parametrize("slow", ["compile", "fill"])
def test_a_backend_that_runs_away_fails(slow):
    def work():
        began = time.thread_time()
        while time.thread_time() - began < 1.1:
            pass

    class Slow(State):
        def fill(self, mask):
            if slow == "fill":
                work()
            super().fill(mask)

    class Away(Toy):
        def compile(self, spec):
            if slow == "compile":
                work()
            made = Compiled([b"aaaa"], "", self.vocabulary)
            made.start = lambda: Slow(made)
            return made

    vocabulary = vocabularies()["byte level"]
    with pytest.raises(AssertionError, match="compiled for" if slow == "compile" else "mask 0 took"):
        Kit().assert_ends_in_time({"byte level": (vocabulary, Away(vocabulary, {}).compile)})


def test_segmentations_are_the_text_and_differ():
    for vocabulary in vocabularies().values():
        cuts = list(segmentations(vocabulary, '{"name": "日本"}'))
        assert {b"".join(vocabulary.token_bytes[i] for i in ids).decode() for ids in cuts} == {'{"name": "日本"}'}
        assert len({tuple(ids) for ids in cuts}) == 3


def test_a_walk_ends_where_it_may_and_gives_its_text():
    vocabulary = vocabularies()["padded"]
    compiled = Toy(vocabulary, {}).compile(GrammarSpec(kind="choice", text='["yes no"]'))
    assert walk(compiled.start(), vocabulary, random.Random(1)) == "yes no"


def test_a_backend_that_ignores_keywords_fails():
    """Any text is right to it, as if the schema said nothing; a right one refuses what it cannot do."""

    class Schemas(Kit):
        kinds = ("json_schema",)

    class Ignores(Right):
        def compile(self, spec):
            return Compiled([b"1", b'"a"', b"{}", b"[1]", b"2"], "", self.vocabulary)

    vocabulary = vocabularies()["byte level"]
    for backend, fails in ((Ignores, True), (Right, False)):
        backends = {"byte level": (vocabulary, backend(vocabulary, {}).compile)}
        if fails:
            with pytest.raises(AssertionError, match="is allowed"):
                Schemas().test_every_keyword_of_a_schema_is_heeded_or_refused(backends)
        else:
            Schemas().test_every_keyword_of_a_schema_is_heeded_or_refused(backends)
