"""A checkpoint in the engine, up to the runner: all choices, the lock and the loader are real, batches made by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import lcm
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.cache.sizing import CachePlanError
from vllm_core.engine.resolve import Resolved, resolve
from vllm_core.interfaces.cache import RecurrentCache, SlidingWindowCache, TokenCache
from vllm_core.interfaces.executor import Capacity
from vllm_core.interfaces.queries import PlatformQuery
from vllm_core.interfaces.steps import NULL_PAGE, PageCopy, PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.plugins import Selector, load_catalog, read_policy
from vllm_core.runner.runner import Runner

ROWS = 6
LONGEST = 96  # tokens of a sequence
SMALL_BLOCK = 4  # tokens a page, where backends take it (else 16): many pages, and many ends of them, in short prompts
POISON = 0xFF  # bytes of it are NaN in every float format


@attrs.define(eq=False)
class Row:
    """A sequence that runs: all its ids are known from the start."""

    number: int
    ids: list[int]
    computed: int
    pages: list[list[int]]  # of each cache group, in block order; NULL_PAGE where a window has passed; a state's one
    news: list[PageGrowth] = attrs.field(factory=list)  # windows' passed blocks, told with the next step
    states_of: Row | None = None  # whose states, as they are now, it goes on from
    admitted: bool = False


class Served:
    """The model that serves a checkpoint, with pages that hold NaN until they are written.

    block_size   tokens a page; None: small, or what the backends take if that is not small
    overrides    fields that replace those of config.json
    settings     further ones of the engine, as arguments of ``LLM``
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str = "float32",
        device: str = "auto",
        block_size: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        made = EngineSettings(
            model=str(folder),
            dtype=dtype,
            device=device,
            skip_tokenizer_init=True,
            max_num_seqs=ROWS,
            max_model_len=LONGEST,
            block_size=block_size or SMALL_BLOCK,
            hf_overrides=dict(overrides or {}),
            **(settings or {}),
        )
        self.resolved = _resolved(made, [block_size] if block_size else [SMALL_BLOCK, 16, None])
        self.runners, self.capacity = self.load()
        self.runner = self.runners[-1]
        self.groups = self.capacity.caches.groups
        for group in self.groups:
            if not isinstance(group.spec, TokenCache | RecurrentCache):
                raise ValueError(
                    f"the kit hands out pages that grow with the sequence, and states; {group.names[0]} declares a"
                    f" cache of kind {group.spec.kind}: say so in `cannot` and test the model by hand until it does"
                )
        self.unit = lcm(*(group.block_size for group in self.groups if isinstance(group.spec, TokenCache)))
        for tensor in self._pages():
            tensor.fill_(POISON)
        self.free = list(range(1, self.runner.num_pages))
        random.Random(0).shuffle(self.free)
        self.readers: Counter[int] = Counter()
        self.live: list[Row] = []
        self.steps = 0

    def load(self) -> tuple[Sequence[Runner], Capacity]:
        """The runners of all ranks, that of the last one at the end; their devices' capacity."""
        runner, capacity = self.resolved.build.make_runner()
        return [runner], capacity

    def logits(self, plan: StepPlan) -> Tensor:
        return self.runner.forward_logits(plan)

    def shareable(self, row: Row) -> int:
        """Tokens of whole blocks in every cache group that the row has computed, 32 at most where blocks are small."""
        if any(isinstance(group.spec, RecurrentCache) for group in self.groups):
            return row.computed // self.unit * self.unit if row.computed % self.unit == 0 else 0  # as its state is now
        return min(max(1, 32 // self.unit), row.computed // self.unit) * self.unit

    def _pages(self) -> list[Tensor]:
        return [tensor for runner in self.runners for tensor in runner.pages]

    def row(self, ids: list[int], prefix_of: Row | None = None, shared: int = 0) -> Row:
        """A new sequence; ``shared`` tokens, whole blocks, are found in the pages of ``prefix_of``.

        Of states it gets a copy, so ``prefix_of`` must have computed these tokens and no more.
        """
        pages: list[list[int]] = [[] for _ in self.groups]
        if prefix_of is not None:
            pages = [
                [] if isinstance(group.spec, RecurrentCache) else table[: shared // group.block_size]
                for group, table in zip(self.groups, prefix_of.pages, strict=True)
            ]
        self.readers.update(page for table in pages for page in table)
        taken = {row.number for row in self.live}
        self.live.append(Row(min(set(range(ROWS)) - taken), ids, shared, pages, states_of=prefix_of))
        return self.live[-1]

    def step(self, work: Sequence[tuple[Row, int]]) -> list[Tensor]:
        """Compute the next tokens of rows, as many as given, in one batch; logits [tokens, vocab_size] of each."""
        logits = self.logits(self.plan(work))
        self.advance(work)
        return list(logits.split([tokens for _, tokens in work]))

    def plan(self, work: Sequence[tuple[Row, int]]) -> StepPlan:
        inits, growths, copies = [], [], []
        for row, tokens in work:
            grown = [*row.news, *self._grow(row, row.computed + tokens)]
            row.news = []
            if row.admitted:
                growths += grown
                continue
            row.admitted = True
            copies += self._states(row)
            inits.append(
                RowInit(
                    row=row.number,
                    token_ids=row.ids,
                    num_computed=row.computed,
                    pages=[list(table) for table in row.pages],
                    sampling=RowSampling(temperature=0.0),
                )
            )
        self.steps += 1
        return StepPlan(
            step=self.steps,
            inits=inits,
            growths=growths,
            copies=copies,
            rows=[row.number for row, _ in work],
            num_tokens=[tokens for _, tokens in work],
            num_drafts=[0] * len(work),
            samples=[False] * len(work),
            kv_bounds=[row.computed + tokens for row, tokens in work],
        )

    def advance(self, work: Sequence[tuple[Row, int]]) -> None:
        """The step has run: count its tokens, give up blocks that windows have passed."""
        for row, tokens in work:
            row.computed += tokens
            for group, table in zip(self.groups, row.pages, strict=True):
                if isinstance(group.spec, SlidingWindowCache):
                    passed = max(0, row.computed - group.spec.window + 1) // group.block_size
                    if gone := [page for page in table[:passed] if page != NULL_PAGE]:
                        self._release(gone)
                        table[:passed] = [NULL_PAGE] * passed
                        row.news.append(
                            PageGrowth(row=row.number, group=group.index, first_block=0, pages=table[:passed])
                        )

    def release(self, *rows: Row) -> None:
        """Rows end, or are preempted: pages without another reader hold NaN again, and are taken next."""
        for row in rows:
            for table in row.pages:
                self._release(table)
                table.clear()
            self.live.remove(row)

    def _grow(self, row: Row, tokens: int) -> list[PageGrowth]:
        growths = []
        for group, table in zip(self.groups, row.pages, strict=True):
            whole = 1 if isinstance(group.spec, RecurrentCache) else -(-tokens // group.block_size)
            lacking = whole - len(table)
            if lacking > 0:
                pages = [self.free.pop() for _ in range(lacking)]
                self.readers.update(pages)
                growths.append(PageGrowth(row=row.number, group=group.index, first_block=len(table), pages=pages))
                table += pages
        return growths

    def _states(self, row: Row) -> list[PageCopy]:
        """What brings another's states into the row's own pages."""
        if row.states_of is None:
            return []
        pages = zip(self.groups, row.states_of.pages, row.pages, strict=True)
        return [
            PageCopy(group.index, source[0], target[0])
            for group, source, target in pages
            if isinstance(group.spec, RecurrentCache)
        ]

    def _release(self, pages: Sequence[int]) -> None:
        owned = [page for page in pages if page != NULL_PAGE]
        self.readers.subtract(owned)
        gone = [page for page in owned if self.readers[page] == 0]
        for tensor in self._pages():
            tensor[torch.tensor(gone, dtype=torch.int64, device=tensor.device)] = POISON
        self.free += gone


def computes(dtype: str, device: str) -> bool:
    """Whether the engine would run this dtype here."""
    if dtype == "float32":
        return True
    platform = Selector(load_catalog(read_policy({}))).choose("platform", PlatformQuery(name=device)).load()()
    return dtype in platform.dtypes()


def _resolved(settings: EngineSettings, block_sizes: Sequence[int | None]) -> Resolved:
    """With the first of these sizes that the backends take."""
    for size in block_sizes[:-1]:
        with suppress(CachePlanError):
            return resolve(attrs.evolve(settings, block_size=size))
    return resolve(attrs.evolve(settings, block_size=block_sizes[-1]))
