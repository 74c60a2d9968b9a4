"""`SchedulerPolicyConformance`: the tests that every scheduler policy runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.engine.outputs import RequestOutput
from vllm_core.interfaces.queries import SchedulerQuery
from vllm_core.interfaces.scheduling import Candidate
from vllm_core.plugin import Offer
from vllm_core.testing.cuts import work
from vllm_core.testing.hollow import HollowRequest, expected, hollow_engine, run
from vllm_core.testing.installed import Installed, InstalledConformance

__all__ = ["SchedulerPolicyConformance"]

SEEN = 2000  # requests, after which a key must cost no more than after a few
TIGHT = 20  # cache pages: one request of the longest kind fits, not two


class SchedulerPolicyConformance(InstalledConformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    policy     its name, as in --scheduling-policy
    patience   seconds after which a request goes before all that come then, whatever they are
    cannot     "patience": some requests may wait for ever -> why that is meant
    """

    kind = "scheduler-policy"
    hook = "scheduler_policy"
    subject = "policy"

    policy: ClassVar[str]
    patience: ClassVar[float] = 60.0

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, installed: Installed) -> Any:
        """``target()``: a policy as an engine makes it."""
        decision = installed.choose(SchedulerQuery(policy=cls.policy))
        return partial(decision.load(), SchedulerQuery(policy=cls.policy, options=decision.offer.options))

    def test_its_hook_offers_it_by_name_and_is_silent_on_other_names(self, installed: Installed) -> None:
        offer = installed.answer(SchedulerQuery(policy=self.policy))
        assert isinstance(offer, Offer), f"{self.hook} answers {offer!r} to its own name"
        assert offer.name == self.policy
        other = installed.answer(SchedulerQuery(policy="unheard-of-by-anybody"))
        assert other is None, f"{self.hook} answers {other!r} to another's name; None says that it is not asked"

    # ---- keys

    def test_keys_are_tuples_of_numbers_that_compare(self, target: Any) -> None:
        policy = target()
        keys = [(candidate, policy.key(candidate)) for candidate in _shapes()]
        for candidate, key in keys:
            assert isinstance(key, tuple), f"the key of {candidate} is {key!r}, no tuple"
            wrong = [v for v in key if not isinstance(v, int | float) or math.isnan(v)]
            assert not wrong, f"the key of {candidate} holds {wrong[0]!r}, which does not compare"
        lengths = {len(key) for _, key in keys}
        assert len(lengths) == 1, f"keys have {sorted(lengths)} numbers: a shorter one would go before a longer one"

    def test_nobody_waits_for_ever(self, target: Any) -> None:
        """A request of any shape goes before one of any shape that comes ``patience`` later."""
        self.needs("patience")
        for later in (self.patience, 100 * self.patience):
            for old, new in itertools.product(_shapes(), _shapes()):
                new = attrs.evolve(new, arrival=old.arrival + later, order=old.order + 1_000_000)
                policy = target()
                first, second = (*policy.key(old), old.order), (*policy.key(new), new.order)
                assert first < second, (
                    f"one that has waited {later:g} s longer goes behind another, so it may wait for ever:\n"
                    f"  waits   {old}, key {first}\n  goes first {new}, key {second}\n"
                    '  instead age by arrival, or say in `cannot` under "patience" why this is meant'
                )

    def test_a_key_costs_no_more_after_many_requests(self, target: Any) -> None:
        policy = target()
        shapes = itertools.cycle(_shapes())

        def ask(number: int) -> int:
            candidate = attrs.evolve(next(shapes), request_id=f"r{number}", order=number, arrival=float(number))
            return work(lambda: policy.key(candidate))

        early = max(ask(number) for number in range(40, 80))
        for number in range(80, SEEN):
            policy.key(attrs.evolve(next(shapes), request_id=f"r{number}", order=number, arrival=float(number)))
        late = max(ask(number) for number in range(SEEN, SEEN + 40))
        assert late <= 3 * early + 10, f"a key makes work of {early} at first and of {late} after {SEEN} requests"

    def test_two_engines_do_not_meet(self, target: Any) -> None:
        asked = list(_shapes())
        alone = [target().key(asked[0])]
        first, second = target(), target()
        for candidate in asked[1:]:
            second.key(attrs.evolve(candidate, request_id=f"other {candidate.request_id}"))
        assert [first.key(asked[0])] == alone, "a key depends on what another engine's policy was asked"

    # ---- in an engine

    @pytest.mark.parametrize("overlapped", [True, False], ids=["overlapped", "plain loop"])
    @pytest.mark.parametrize("pages", [256, TIGHT], ids=["room for all", "preemption"])
    def test_every_request_is_answered_once_with_the_tokens_of_first_come_first_served(
        self, target: Any, pages: int, overlapped: bool
    ) -> None:
        requests = list(_mix(self.policy))
        plain, steps = _answered(None, requests, pages, overlapped, 5000)
        if pages == TIGHT:
            assert sum(o.metrics.num_preemptions for o in plain), "the kit gave the engine too large a cache"
        found, _ = _answered(target(), requests, pages, overlapped, 20 * steps)
        assert sorted(o.request_id for o in found) == sorted(o.request_id for o in plain)
        for output in found:
            request = requests[int(output.request_id)]
            got = output.outputs[0].token_ids
            assert got == expected(request.prompt, request.tokens), f"request {output.request_id} got other tokens"

    def test_one_that_has_waited_is_answered_before_those_that_keep_coming(self, target: Any) -> None:
        self.needs("patience")
        now = time.time()
        for old in (HollowRequest(prompt=tuple(range(30)), tokens=20), HollowRequest(prompt=(1,), tokens=2)):
            new = HollowRequest(prompt=(5,), tokens=2) if len(old.prompt) > 1 else attrs.evolve(old, prompt=(5,) * 30)
            waited = attrs.evolve(old, arrival=now - 3 * self.patience - 60)
            crowd = [attrs.evolve(new, arrival=now, step=step) for step in range(60) for _ in range(2)]
            found, _ = _answered(target(), [crowd[0], waited, *crowd[1:]], 64, True, 5000, rows=1)
            place = [output.request_id for output in found].index("1")
            assert place <= 2, (
                f"it was answered as number {place + 1}, after others that came {self.patience:g} s later"
            )


def _shapes() -> Iterator[Candidate]:
    """Requests of every kind, alike in when they came."""
    sizes = itertools.product((1, 300, 100_000), (0, 70), (-3, 0, 9), (False, True))
    for number, (prompt, output, priority, cached) in enumerate(sizes):
        yield Candidate(
            request_id=f"r{number}", arrival=1000.0, order=number, priority=priority, prompt_tokens=prompt,
            output_tokens=output, cached_tokens=prompt - 1 if cached else 0,
        )  # fmt: skip


def _mix(seed: str) -> Iterator[HollowRequest]:
    """Long and short ones, some with a common beginning, that come over some steps."""
    rng = random.Random(seed)
    shared = tuple(rng.randrange(90) for _ in range(12))
    for _ in range(30):
        own = tuple(rng.randrange(90) for _ in range(rng.choice((1, 3, 9, 20))))
        prompt = shared + own if rng.random() < 0.4 else own
        yield HollowRequest(
            prompt=prompt, tokens=rng.randint(1, 24), priority=rng.randint(-2, 2), step=rng.randint(0, 40)
        )  # fmt: skip


def _answered(
    policy: Any, requests: list[HollowRequest], pages: int, overlapped: bool, most: int, rows: int = 6
) -> tuple[list[RequestOutput], int]:
    """Outputs, and the steps that they took."""
    steps = [0]

    def count() -> None:
        steps[0] += 1

    engine = hollow_engine(policy, pages=pages, rows=rows, overlapped=overlapped)
    return run(engine, requests, most, count), steps[0]
