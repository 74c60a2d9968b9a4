"""A device that is exact about pages and nothing else.

Pages hold token ids. A step writes its tokens through the row's block table, reads the whole
sequence back through the table, and samples a hash of what it read: a page that was given to two
rows, freed too early, hit wrongly or not copied shows as a wrong token. Results become visible
only when they are asked for; plans are executed when they are launched, as on a real device.

With ``follows`` a proposer has a cache of its own in the same pages: behind each step it writes what the
step computed, the sampled token and all but the last of its guesses, and the next step finds all of it.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.steps import NULL_PAGE, StepPlan, StepResult

VOCAB = 97


def next_token(tokens, temperature=0.0, seed=0) -> int:
    """What the model says after these tokens."""
    noise = (seed, len(tokens)) if temperature else ()
    data = np.asarray([*tokens, *noise], dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little") % VOCAB


def plain(prompt, max_tokens, stop_ids=(), max_len=10**9, temperature=0.0, seed=0) -> list[int]:
    """The tokens a request must get, whatever shares the engine with it."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_tokens and len(tokens) < max_len:
        tokens.append(next_token(tokens, temperature, seed))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]


def cache_plan(block_size: int, window: int | None = None) -> CachePlan:
    full = {"num_kv_heads": 1, "k_dim": 4, "v_dim": 4, "dtype": "float32"}
    groups = [CacheGroup(index=0, spec=FullAttentionCache(**full), names=("a",), block_size=block_size)]
    if window is not None:
        spec = SlidingWindowCache(**full, window=window)
        groups.append(CacheGroup(index=1, spec=spec, names=("b",), block_size=block_size))
    return CachePlan(groups=tuple(groups), page_bytes=32 * block_size, num_tensors=1)


class Row:
    def __init__(self, init, num_groups):
        self.tokens = list(init.token_ids)
        self.computed = init.num_computed
        self.tables = [list(pages) for pages in init.pages]
        self.sampling = init.sampling
        self.guesses = None  # of a proposer that follows steps, for the next one
        assert len(self.tables) == num_groups


class FakePending:
    def __init__(self, device, result):
        self.device, self._result = device, result

    def done(self):
        return not self.device.slow

    def result(self, timeout=None):
        self.device.fetched.append(self._result.step)
        plan, as_launched = self.device.plans[self._result.step], self.device.wire[self._result.step]
        assert msgspec.msgpack.encode(plan) == as_launched, "a plan does not change after its launch"
        return self._result


class FakeDevice:
    """``interfaces.executor.Executor``. ``accept`` is the chance that a draft is right."""

    def __init__(
        self,
        *,
        block_size=4,
        num_pages=64,
        max_rows=8,
        num_drafts=0,
        accept=0.5,
        window=None,
        slow=True,
        seed=0,
        follows=False,
    ):
        self.stages = 1  # of a pipeline
        self.lookahead = num_drafts if follows else 0
        self.block_size, self.num_pages, self.max_rows, self.window = block_size, num_pages, max_rows, window
        self.num_drafts, self.accept, self.slow = num_drafts, accept, slow
        self.plan = cache_plan(block_size, window)
        self.pages = np.full((num_pages, block_size), -1, dtype=np.int64)
        self.second = self.pages.copy()  # the proposer's cache
        self.rows: dict[int, Row] = {}
        self.plans: list[StepPlan] = []
        self.wire: list[bytes] = []
        self.depth = 2  # steps in flight at most
        self.sampled = 0  # tokens
        self.copied = 0  # pages
        self.owners: list[int] | None = None  # of each page, as the engine has it
        self.launched, self.fetched = [], []
        self.fetched_at: list[int] = []  # results that were fetched before each launch
        self.rng = np.random.default_rng(seed)
        self.fail_at: int | None = None

    def start(self) -> Capacity:
        return Capacity(
            caches=self.plan,
            num_pages=self.num_pages,
            max_rows=self.max_rows,
            num_drafts=self.num_drafts,
            vocab_size=VOCAB,
            lookahead=self.lookahead,
            stages=self.stages,
        )

    def stop(self) -> None: ...

    def launch(self, plan: StepPlan) -> FakePending:
        assert plan.step == len(self.plans), "steps count up by one"
        if plan.step == self.fail_at:
            raise RuntimeError("the device is on fire")
        self.plans.append(plan)
        self.wire.append(msgspec.msgpack.encode(plan))
        self.launched.append(plan.step)
        self.fetched_at.append(len(self.fetched))
        assert len(self.launched) - len(self.fetched) <= self.depth, "not too many steps in flight"
        self._copy(plan.copies)
        for init in plan.inits:
            self.rows[init.row] = Row(init, len(self.plan.groups))
        for growth in plan.growths:
            table = self.rows[growth.row].tables[growth.group]
            assert growth.first_block <= len(table), "a table grows without holes"
            table[growth.first_block : growth.first_block + len(growth.pages)] = growth.pages
        assert len(set(plan.rows)) == len(plan.rows), "a row runs once a step"
        if self.owners is not None:
            pages = {page for row in plan.rows for table in self.rows[row].tables for page in table} - {NULL_PAGE}
            assert all(self.owners[page] for page in pages), "a table holds a page that went back to the pool"
        width = 1 + max([0, *plan.num_drafts])
        out = np.full((len(plan.rows), width), -1, dtype=np.int32)
        for i, row in enumerate(plan.rows):
            self._write(self.rows[row], plan.num_tokens[i], plan.num_drafts[i], plan.kv_bounds[i])
        for i, row in enumerate(plan.rows):
            emitted = self._run(self.rows[row], plan.num_tokens[i], plan.num_drafts[i], plan.samples[i])
            out[i, : len(emitted)] = emitted
        if self.lookahead:
            for i, row in enumerate(plan.rows):
                self._follow(self.rows[row], plan.num_tokens[i] - plan.num_drafts[i], plan.samples[i])
        return FakePending(self, StepResult(step=plan.step, token_ids=out))

    def _copy(self, copies):
        """All are read before any is written. Who copies from a page keeps it until the step is over."""
        if self.owners is not None:
            assert all(self.owners[copy.source] and self.owners[copy.target] for copy in copies), (
                "nobody's page is copied"
            )
        for pages in (self.pages, self.second):
            contents = [pages[copy.source].copy() for copy in copies]
            for copy, content in zip(copies, contents, strict=True):
                assert copy.source != copy.target
                pages[copy.target] = content
        self.copied += len(copies)

    def _write(self, row, count, drafts, bound):
        """All rows write before any row reads, as the layers of a model do."""
        row.drafts = self._guess(row, drafts) if row.guesses is None else row.guesses[:drafts]
        if self.lookahead:
            known = row.computed + bool(row.guesses)
            told = [int(self.second[row.tables[0][p // self.block_size], p % self.block_size]) for p in range(known)]
            assert told == row.tokens[:known], "the proposer's cache lacks tokens, or has others"
        ids = (row.tokens + row.drafts)[row.computed : row.computed + count]
        assert len(ids) == count, "a row computes only tokens that it has"
        assert row.computed + count <= bound, "the bound is one"
        for position, token in enumerate(ids, row.computed):
            for table in row.tables:
                page = table[position // self.block_size]
                assert page != NULL_PAGE, "tokens are written to a page that somebody owns"
                self.pages[page, position % self.block_size] = token

    def _guess(self, row, count) -> list[int]:
        guesses = []
        for _ in range(count):
            right = next_token(row.tokens + guesses, row.sampling.temperature, row.sampling.seed)
            guesses.append(right if self.rng.random() < self.accept else (right + 1) % VOCAB)
        return guesses

    def _follow(self, row, count, samples):
        """The proposer's entries of the last tokens, and of guesses; what has no page falls away."""
        end = row.computed + samples
        if samples:
            row.guesses = self._guess(row, self.num_drafts)
        first = end - count - samples
        for position, token in enumerate((row.tokens + (row.guesses or [])[:-1])[first:], first):
            if position >= end and not samples:
                break
            if position // self.block_size < len(row.tables[0]):
                self.second[row.tables[0][position // self.block_size], position % self.block_size] = token

    def _read(self, row, end) -> list[int]:
        """Tokens 0 to end - 1 as the caches tell them; windows must agree with the full group."""
        told = [int(self.pages[row.tables[0][p // self.block_size], p % self.block_size]) for p in range(end)]
        if self.window is not None:
            for p in range(max(0, end - self.window), end):
                page = row.tables[1][p // self.block_size]
                assert page != NULL_PAGE, "a window reads what was freed"
                assert int(self.pages[page, p % self.block_size]) == told[p], "the window's page holds another token"
        return told

    def _run(self, row, count, drafts, samples) -> list[int]:
        if not samples:
            row.computed += count
            self._read(row, row.computed)
            return []
        start = row.computed + count - drafts  # tokens in the cache before the first draft
        emitted = []
        for i in range(drafts + 1):
            emitted.append(next_token(self._read(row, start + i), row.sampling.temperature, row.sampling.seed))
            if i < drafts and row.drafts[i] != emitted[-1]:
                break
        row.computed += count - drafts + len(emitted) - 1
        row.tokens += emitted
        self.sampled += len(emitted)
        assert row.computed == len(row.tokens) - 1
        return emitted
