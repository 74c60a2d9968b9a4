"""With guesses the tokens are those of plain decoding, whatever happens to the requests on the way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

import attrs

from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.cache import SlidingWindowCache
from vllm_core.testing.speculating import LONGEST, Ask, Ran, Speculating, assert_empty, assert_no_page_too_many, run

TOKENS = 40  # of each output
RANDOM_MIXES = 3  # overlapped; overlapped in a small cache; the plain loop in a small cache


class Lossless:
    """Tests of each number of guesses. ``certain`` is explained in `ProposerConformance`."""

    certain: ClassVar[bool] = True
    least_accepted: ClassVar[float] = 0.0

    def test_greedy_tokens_are_those_of_plain_decoding(self, speculating: Speculating, drafts: int) -> None:
        asks = asked(speculating, temperature=0.0)
        ran = speculating.ran(drafts, asks)
        same(ran, speculating.plain(asks), "greedy")
        self.check_accepted(ran, "of greedy decoding")

    def test_seeded_tokens_are_those_of_plain_decoding(self, speculating: Speculating, drafts: int) -> None:
        """Of certain guesses; drawn ones keep the distribution, not each token."""
        changes = [{"temperature": 0.9, "top_p": 0.9}, {"temperature": 1.3, "top_k": 7, "repetition_penalty": 1.2}]
        asks = [ask for change in changes for ask in asked(speculating, **change)]
        asks.append(asked(speculating, **changes[0], n=3)[0])  # samples that share what one computed of the prompt
        ran, plain = speculating.ran(drafts, asks), speculating.plain(asks)
        if self.certain:
            same(ran, plain, "seeded")
        assert [len(ids) for ids in ran.tokens] == [len(ids) for ids in plain.tokens]

    def test_it_ends_where_plain_decoding_ends(self, speculating: Speculating, drafts: int) -> None:
        """After one token and few, at the longest sequence, and at a token that stops it."""
        prompts = [ask.prompt for ask in asked(speculating, temperature=0.0)]
        ids = speculating.plain(asked(speculating, temperature=0.0)).tokens[0]
        asks = [Ask(prompts[i % len(prompts)], _greedy(n)) for i, n in enumerate((1, 2, 3, 4, 5, 6))]
        asks += [Ask(prompts[0], _greedy(LONGEST)), Ask(prompts[1][:2], _greedy(LONGEST))]
        asks += [Ask(prompts[0], _greedy(TOKENS, stop)) for stop in ids[3:9]]
        same(speculating.ran(drafts, asks), speculating.plain(asks), "ended early or late")

    def test_cut_prompts_cached_prefixes_and_preemption_change_no_token(
        self, speculating: Speculating, drafts: int
    ) -> None:
        asks = asked(speculating, temperature=0.0)
        plain = speculating.plain(asks)
        longest = max(len(ask.prompt) for ask in asks) + TOKENS
        with speculating.engine(drafts, **speculating.tight(drafts, longest)) as engine:
            first, second = run(engine, asks), run(engine, asks)
            preempted = sum(o.metrics.num_preemptions for ran in (first, second) for o in ran.outputs)
            grows = any(not isinstance(g.spec, SlidingWindowCache) for g in engine.core.capacity.caches.groups)
            assert preempted or not grows, "no request was preempted; the kit gave the engine too large a cache"
            assert_empty(engine)
        same(first, plain, "cut and preempted")
        same(second, plain, "cut and preempted a second time")
        self.check_accepted(first, "where prompts are cut and requests preempted")
        with speculating.engine(drafts) as engine:
            first, second = run(engine, asks), run(engine, asks)
            assert sum(o.num_cached_tokens for o in second.outputs), "no prefix was found in the cache"
        same(second, plain, "behind a cached prefix")
        self.check_accepted(second, "behind a cached prefix")

    def test_requests_that_come_and_are_aborted_change_nothing_of_others(
        self, speculating: Speculating, drafts: int
    ) -> None:
        for number in range(RANDOM_MIXES):
            rng = random.Random(number)
            asks = [
                Ask(rng.choice(asks).prompt, ask.params, rng.choice([None, None, rng.randint(0, 30)]))
                for asks in [asked(speculating, temperature=0.0)]
                for ask in asks * 2
            ]
            whole = speculating.plain([attrs.evolve(ask, abort_at=None) for ask in asks]).tokens
            longest = max(len(ask.prompt) for ask in asks) + TOKENS
            settings = speculating.tight(drafts, longest) if number else {}
            with speculating.engine(drafts, async_scheduling=number < 2, **settings) as engine:
                ran = run(engine, asks)
                assert_empty(engine)
            for ask, want, got in zip(asks, whole, ran.tokens, strict=True):
                wanted = want if ask.abort_at is None else want[: len(got)]
                assert got == wanted, f"mix {number}: after {_agree(got, wanted)} tokens others than plain decoding's"

    def test_rollback_leaves_no_block_behind(self, speculating: Speculating, drafts: int) -> None:
        """Looked at before every step, with guesses that are mostly wrong, and with requests that go away."""
        asks = [*asked(speculating, temperature=1.5), *asked(speculating, temperature=0.0)]
        asks[1], asks[4] = attrs.evolve(asks[1], abort_at=7), attrs.evolve(asks[4], abort_at=15)
        longest = max(len(ask.prompt) for ask in asks) + TOKENS
        for settings in ({}, {"enable_prefix_caching": False}, speculating.tight(drafts, longest)):
            with speculating.engine(drafts, **settings) as engine:
                ran = run(engine, asks, between=assert_no_page_too_many)
                assert_empty(engine)
            if self.least_accepted < 0.9:
                assert ran.accepted < ran.guesses, f"all {ran.guesses} guesses were accepted: this proves nothing"

    def check_accepted(self, ran: Ran, what: str) -> None:
        """Guesses are good wherever they are made: a cache of the proposer's own that lacks entries shows here."""
        __tracebackhide__ = True
        assert ran.guesses, "no guess was verified: the proposer never ran"
        share = ran.accepted / ran.guesses
        assert share >= self.least_accepted, (
            f"{ran.accepted} of {ran.guesses} guesses {what} were accepted ({share:.1%}); `least_accepted` is"
            f" {self.least_accepted:.0%}"
        )


def asked(speculating: Speculating, **params: float) -> list[Ask]:
    """The kit's requests: one that repeats itself, a single token, and some with a common beginning."""
    rng = random.Random(0)
    said = [rng.randrange(min(40, speculating.vocab_size)) for _ in range(12)]
    prompts = [[*said, 1, *said, 2, *said[:6]], said[:1], [*said, 3], said[3:6] * 5]
    return [
        Ask(tuple(p), SamplingParams(**{"seed": i, "max_tokens": TOKENS, "ignore_eos": True, **params}))  # type: ignore[arg-type]
        for i, p in enumerate(prompts)
    ]


def same(ran: Ran, plain: Ran, what: str) -> None:
    """Each output is that of plain decoding."""
    __tracebackhide__ = True
    for number, (got, want) in enumerate(zip(ran.tokens, plain.tokens, strict=True)):
        if got != want:
            at = _agree(got, want)
            raise AssertionError(
                f"{what}: request {number} has {len(got)} tokens and plain decoding {len(want)}; they agree up to"
                f" token {at}: {got[at : at + 3]} instead of {want[at : at + 3]}"
            )


def _agree(got: Sequence[int], want: Sequence[int]) -> int:
    """Tokens before the first that differs."""
    return next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))


def _greedy(tokens: int, *stop: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, stop_token_ids=list(stop))
