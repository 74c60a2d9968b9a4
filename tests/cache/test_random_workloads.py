"""The cache manager under random workloads, beside a device that remembers what each page holds.

Longer than other tests because the simulated device and engine belong together: every step reads
all entries that a real one would read and finds exactly what its own sequence wrote there.
"""

from __future__ import annotations

import random
from collections import deque

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vllm_core.engine.cache import CacheManager, ExtraKey, table_widths
from vllm_core.interfaces.cache import (
    CacheGroup,
    CachePlan,
    CrossAttentionCache,
    FullAttentionCache,
    LatentCache,
    RecurrentCache,
    SlidingWindowCache,
)
from vllm_core.interfaces.steps import NULL_PAGE

HEAD = {"num_kv_heads": 1, "k_dim": 4, "v_dim": 4, "dtype": "float32"}
FULL = FullAttentionCache(**HEAD)
CROSS = CrossAttentionCache(**HEAD)
LATENT = LatentCache(latent_dim=6, rope_dim=2, dtype="float32")
STATE = RecurrentCache(shapes=((4, 4),), dtypes=("float32",))


def window(tokens: int) -> SlidingWindowCache:
    return SlidingWindowCache(window=tokens, **HEAD)


MIXES = {
    "full": [(FULL, 4)],
    "latent": [(LATENT, 3)],
    "window": [(window(6), 4)],
    "full and windows": [(FULL, 4), (window(5), 4), (window(1), 2)],
    "full and window of another size": [(FULL, 2), (window(7), 6)],
    "state": [(STATE, 4)],
    "full and states": [(FULL, 2), (STATE, 4), (STATE, 4)],
    "full and cross": [(FULL, 4), (CROSS, 2)],
    "all kinds": [(FULL, 2), (window(5), 2), (LATENT, 4), (STATE, 8), (CROSS, 4)],
}
MAX_LEN = 40


def make_plan(mix: str) -> CachePlan:
    groups = [CacheGroup(index=i, spec=s, names=(f"layer.{i}",), block_size=b) for i, (s, b) in enumerate(MIXES[mix])]
    return CachePlan(groups=tuple(groups), page_bytes=512, num_tensors=1)


@attrs.define(eq=False)
class Row:
    """A sequence's incarnation on the device: admitted, forked or rolled back."""

    name: int
    root: tuple
    tokens: list[int]  # the device's own, ahead of the host's
    tables: list[list[int]]
    computed: int
    prompt: int  # tokens known when the row was taken
    media: tuple | None
    encoded: bool
    upper: int = 0  # what the host believes at most
    marks: list[int] = attrs.field(factory=list)

    def mark(self, length: int) -> int:
        """Stands for what a cache holds of exactly these tokens."""
        while len(self.marks) <= length:
            before = len(self.marks) - 1  # tokens under the last mark; -1: the root has none yet
            self.marks.append(hash(self.root) if before < 0 else hash((self.marks[-1], self.tokens[before])))
        return self.marks[length]


@attrs.define(eq=False)
class Result:
    row: Row
    count: int  # query tokens
    computed: int  # entries after the step
    sampled: list[int]


@attrs.define(eq=False)
class Flight:
    step: int
    pages: set[int]  # that it may touch
    results: list[Result]


class Simulation:
    """An engine's calls in a legal but otherwise arbitrary order, and the device they drive."""

    def __init__(self, mix: str, num_pages: int, num_drafts: int, caching: bool, dice: random.Random) -> None:
        self.plan = make_plan(mix)
        self.k = num_drafts
        self.dice = dice
        self.manager = CacheManager(
            self.plan, num_pages, max_model_len=MAX_LEN, prefix_caching=caching, num_drafts=num_drafts
        )
        self.widths = table_widths(
            self.plan, max_model_len=MAX_LEN, num_drafts=num_drafts, max_encoder_tokens=8, checkpoints=caching
        )
        self.cross = any(group.spec is CROSS for group in self.plan.groups)
        self.content: dict[int, dict] = {}  # page -> entry -> mark
        self.names = 0
        self.steps = 0
        self.waiting: dict[int, dict] = {}  # name -> how it was opened
        self.running: dict[int, Row] = {}
        self.known: dict[int, list[int]] = {}  # the host's tokens
        self.opened: dict[int, dict] = {}
        self.flights: deque[Flight] = deque()

    # ---- requests

    def open(self, family: int, length: int, salt: int, share: bool = True) -> None:
        """Prompts of a family are prefixes of each other up to their last token."""
        tokens = [(i * i * (family + 1)) % 3 for i in range(length - 1)] + [self.dice.randrange(3)]
        media = (salt, family % 2, 3 + 4 * (family % 2)) if self.cross else None  # salt, which, encoder tokens
        name, self.names = self.names, self.names + 1
        self.known[name] = tokens
        self.opened[name] = {"root": (salt, family % 2 if salt else None, media), "media": media}
        self.manager.open(
            name,
            tokens,
            salt=bytes([salt]),
            extra_keys=[ExtraKey(bytes([family % 2]))] if salt else [],
            encoder_tokens=media[2] if media else 0,
            encoder_key=bytes([1, media[1]]) if media else b"",
            share_prefix=share,
        )
        self.waiting[name] = {}

    def start(self, name: int, admission) -> None:
        """What RowInit does, from what the manager said."""
        if admission is None:
            self.waiting.setdefault(name, {})
            return
        self.waiting.pop(name, None)
        opened, tokens = self.opened[name], self.known[name]
        assert 0 <= admission.num_computed < len(tokens)
        row = Row(
            name, opened["root"], list(tokens), [list(t) for t in admission.pages], admission.num_computed,
            len(tokens), opened["media"], admission.encoder_cached, admission.num_computed,
        )  # fmt: skip
        self.running[name] = row

    def admit(self, name: int, budget: int, beside: int | None = None) -> None:
        shared = 0
        if beside is not None and self.opened[beside]["root"] == self.opened[name]["root"]:
            pairs = enumerate(zip(self.known[beside], self.known[name], strict=False))
            shared = next((i for i, (a, b) in pairs if a != b), min(len(self.known[beside]), len(self.known[name])))
        in_flight = self.pages_in_flight()
        before = list(self.manager.pool.owners)
        free = self.manager.num_free
        admission = self.manager.admit(name, budget, parent_id=beside if shared else None, shared=shared)
        if admission is None:
            assert self.manager.num_free == free
            assert self.manager.pool.owners == before
        else:
            taken = {page for table in admission.pages for page in table if before[page] == 0} - {NULL_PAGE}
            assert not taken & in_flight, "a page was given away that a step in flight may touch"
        self.start(name, admission)

    def drop(self, name: int, close: bool) -> None:
        self.running.pop(name, None)
        if close:
            self.manager.close(name)
            self.waiting.pop(name, None)
            del self.known[name], self.opened[name]
        else:
            self.manager.release(name)
            self.waiting.setdefault(name, {})

    def fork(self, name: int) -> None:
        child, self.names = self.names, self.names + 1
        self.known[child] = list(self.known[name])
        self.opened[child] = self.opened[name]
        self.start(child, self.manager.fork(name, child, self.known[child], budget=2))

    def back_up(self, name: int, back: int) -> None:
        """Go back to ``back`` tokens before what is computed, and continue otherwise."""
        tokens = self.known[name]
        length = max(0, min(self.manager.sequences[name].computed, len(tokens) - 1) - back)
        self.running.pop(name)
        del tokens[length + 1 :]
        tokens[length] = 5  # another continuation
        self.start(name, self.manager.rollback(name, length, budget=1))

    # ---- steps

    def pages_in_flight(self) -> set[int]:
        return set().union(*(flight.pages for flight in self.flights))

    def launch(self, names: list[int], chunk: int) -> None:
        planned: list[tuple[Row, int]] = []
        for name in names:
            row = self.running.get(name)
            if row is None:
                continue
            count = min(chunk, row.prompt - row.upper) if row.upper < row.prompt else 1 + self.k
            if row.upper + count > MAX_LEN + self.k:
                continue
            in_flight = self.pages_in_flight()
            can = self.manager.can_reserve(name, row.upper + count)
            growths = self.manager.reserve(name, row.upper + count)
            assert (growths is not None) == can
            if growths is None:
                continue
            for group, first, pages in growths:
                table = row.tables[group]
                table += [NULL_PAGE] * (first + len(pages) - len(table))
                table[first : first + len(pages)] = pages
                assert not set(pages) & in_flight, "a page was given away that a step in flight may touch"
            planned.append((row, count))
        copies = self.manager.take_copies()
        self.steps += 1
        self.manager.launched(self.steps, [row.name for row, _ in planned])
        touched = {page for copy in copies for page in (copy.source, copy.target)}
        for copy in copies:
            self.content[copy.target] = dict(self.content[copy.source])
        results = []
        for row, count in planned:
            seq = self.manager.sequences[row.name]
            for table, mine, width in zip(row.tables, seq.tables, self.widths, strict=True):
                assert table[: len(mine.pages)] == mine.pages, "the device's table is not the manager's"
                assert len(mine.pages) <= width
                touched |= set(mine.pages) - {NULL_PAGE}
            results.append(self.execute(row, count))
            row.upper += count
        self.flights.append(Flight(self.steps, touched, results))

    def execute(self, row: Row, count: int) -> Result:
        """The forward pass of one row: read all that it needs, write, accept some drafts."""
        start = row.computed
        prefill = start < row.prompt
        if prefill:
            accepted, sampled = count, [self.dice.randrange(3)] if start + count == row.prompt else []
        else:
            accepted = self.dice.randint(1, count)
            sampled = [self.dice.randrange(3) for _ in range(accepted)]
        row.tokens += sampled
        stop = start + accepted  # entries from here on are those of rejected drafts
        for group, table in zip(self.plan.groups, row.tables, strict=True):
            size, spec = group.block_size, group.spec
            if spec is CROSS:
                if not row.encoded:
                    for page in table:
                        self.content[page] = {"media": row.media}
                assert all(self.content[page] == {"media": row.media} for page in table)
            elif spec is STATE:
                ring = 1 + self.k
                if start:
                    assert self.content[table[start % ring]]["state"] == row.mark(start), "not its own state"
                for length in range(start + 1, start + count + 1):
                    state = row.mark(length) if length <= stop else object()
                    pages = [table[length % ring]] if length > start + count - ring else []
                    block = ring + length // size - 1
                    if length % size == 0 and block < len(table) and table[block] != NULL_PAGE:
                        pages.append(table[block])
                    for page in pages:
                        self.content[page] = {"state": state}
            else:
                first = max(0, start - spec.window + 1) if isinstance(spec, SlidingWindowCache) else 0
                for position in range(first, start):
                    page = table[position // size]
                    assert page != NULL_PAGE
                    assert self.content[page].get(position % size) == row.mark(position + 1), "not its own entry"
                for position in range(start, start + count):
                    page = table[position // size]
                    assert page != NULL_PAGE
                    mark = row.mark(position + 1) if position < stop else object()
                    self.content.setdefault(page, {})[position % size] = mark
        row.encoded = True
        row.computed = stop
        return Result(row, count, stop, sampled)

    def retire(self, learn_first: bool = False) -> None:
        flight = self.flights.popleft()
        if not learn_first:
            self.manager.retired(flight.step)
        for result in flight.results:
            row = result.row
            if self.running.get(row.name) is not row:
                continue  # aborted, preempted or rolled back meanwhile
            self.known[row.name] += result.sampled
            self.manager.advance(row.name, result.computed)
            row.upper = result.computed + sum(
                r.count for flight in self.flights for r in flight.results if r.row is row
            )
        if learn_first:
            self.manager.retired(flight.step)

    def end(self) -> None:
        while self.flights:
            self.retire()
        for name in list(self.known):
            self.drop(name, close=True)
        self.manager.take_copies()
        self.manager.launched(self.steps + 1, [])
        self.manager.retired(self.steps + 1)
        self.manager.check()
        assert self.manager.num_free == self.manager.pool.num_pages - 1


class CacheMachine(RuleBasedStateMachine):
    @initialize(
        mix=st.sampled_from(sorted(MIXES)),
        num_pages=st.integers(14, 70),
        num_drafts=st.integers(0, 2),
        caching=st.sampled_from([True, True, True, False]),
        seed=st.integers(0, 999),
    )
    def begin(self, mix, num_pages, num_drafts, caching, seed):
        self.sim = Simulation(mix, num_pages, num_drafts, caching, random.Random(seed))

    def pick(self, names, which: int) -> int:
        return sorted(names)[which % len(names)]

    @rule(
        family=st.integers(0, 2),
        length=st.integers(1, 24),
        salt=st.integers(0, 1),
        share=st.sampled_from([True, True, False]),
        budget=st.integers(0, 9),
    )
    def open_and_admit(self, family, length, salt, share, budget):
        self.sim.open(family, length, salt, share)
        self.sim.admit(self.sim.names - 1, budget)

    @precondition(lambda self: self.sim.waiting)
    @rule(which=st.integers(0, 9), budget=st.integers(0, 9))
    def admit(self, which, budget):
        self.sim.admit(self.pick(self.sim.waiting, which), budget)

    @precondition(lambda self: self.sim.waiting and self.sim.running)
    @rule(which=st.integers(0, 9), beside=st.integers(0, 9), budget=st.integers(0, 9))
    def admit_beside(self, which, beside, budget):
        self.sim.admit(self.pick(self.sim.waiting, which), budget, beside=self.pick(self.sim.running, beside))

    @precondition(lambda self: len(self.sim.flights) < 3)
    @rule(leave_out=st.sets(st.integers(0, 9), max_size=2), chunk=st.integers(1, 12))
    def launch(self, leave_out, chunk):
        names = [name for name in sorted(self.sim.running) if name % 10 not in leave_out]
        self.sim.launch(names, chunk)

    @precondition(lambda self: self.sim.flights)
    @rule(learn_first=st.booleans())
    def retire(self, learn_first):
        self.sim.retire(learn_first)

    @rule(steps=st.integers(1, 6), chunk=st.integers(2, 12))
    def run_on(self, steps, chunk):
        """Some steps with one always in flight, as the overlapped loop does."""
        for _ in range(steps):
            self.sim.launch(sorted(self.sim.running), chunk)
            self.sim.manager.check()
            while len(self.sim.flights) > 1:
                self.sim.retire()
                self.sim.manager.check()

    @precondition(lambda self: self.sim.running)
    @rule(which=st.integers(0, 9))
    def preempt(self, which):
        self.sim.drop(self.pick(self.sim.running, which), close=False)

    @precondition(lambda self: self.sim.known)
    @rule(which=st.integers(0, 9))
    def finish_or_abort(self, which):
        self.sim.drop(self.pick(self.sim.known, which), close=True)

    @precondition(lambda self: self.sim.running)
    @rule(which=st.integers(0, 9))
    def fork(self, which):
        self.sim.fork(self.pick(self.sim.running, which))

    @precondition(lambda self: self.sim.running)
    @rule(which=st.integers(0, 9), back=st.integers(0, 24))
    def roll_back(self, which, back):
        self.sim.back_up(self.pick(self.sim.running, which), back)

    @precondition(lambda self: self.sim.running)
    @rule(which=st.integers(0, 9))
    def trim(self, which):
        row = self.sim.running[self.pick(self.sim.running, which)]
        self.sim.manager.trim(row.name, row.upper)

    @rule()
    def reset_prefix_cache(self):
        self.sim.manager.reset_prefix_cache()

    @invariant()
    def every_page_is_accounted_for(self):
        if hasattr(self, "sim"):
            self.sim.manager.check()

    def teardown(self):
        if hasattr(self, "sim"):
            self.sim.end()


CacheMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_no_page_is_leaked_doubly_owned_or_lost_in_any_order_of_calls = CacheMachine.TestCase


@pytest.mark.parametrize("num_drafts", [0, 2])
@pytest.mark.parametrize("mix", sorted(MIXES))
def test_ten_thousand_requests_pass_through_a_tiny_cache_without_a_leak(mix, num_drafts):
    """The two parameters together make 18 times 600 requests."""
    dice = random.Random(7)
    sim = Simulation(mix, num_pages=60, num_drafts=num_drafts, caching=True, dice=dice)
    done = 0
    while done < 600:
        while len(sim.known) < 6:
            sim.open(dice.randrange(3), dice.randint(1, 24), dice.randrange(2))
        for name in list(sim.waiting):
            sim.admit(name, budget=8, beside=dice.choice([None, *sim.running]))
        sim.launch(sorted(sim.running), chunk=8)
        while len(sim.flights) > 1:
            sim.retire()
        for name in list(sim.running):
            if len(sim.known[name]) > dice.randint(16, MAX_LEN):
                sim.drop(name, close=True)
                done += 1
        if len(sim.running) > 1 and not sim.flights[-1].results:
            sim.drop(max(sim.running), close=False)  # the pages are used up: the newest gives way
        if sim.running:
            name = dice.choice(sorted(sim.running))
            chance = dice.random()
            if chance < 0.05:
                sim.drop(name, close=False)
            elif chance < 0.1:
                sim.fork(name)
            elif chance < 0.15:
                sim.back_up(name, dice.randrange(24))
        if sim.steps % 50 == 0:
            sim.manager.check()
    assert sim.manager.stats().evictions > 0
    assert sim.manager.stats().hits > 0
    sim.end()
