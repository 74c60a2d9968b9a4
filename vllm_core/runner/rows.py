"""The rows: what the device remembers of each running request between steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from vllm_core.interfaces.proposer import RowView
from vllm_core.interfaces.steps import NULL_PAGE, PageGrowth, RowInit, StepPlan
from vllm_core.runner.staging import upload


class Rows:
    """R rows with room for L tokens each, as tensors indexed by row.

    token_ids      int32 [R, L]; the K drafts that the next step verifies follow the known tokens
    num_tokens     int32 [R], known tokens, the one sampled last included
    num_computed   int32 [R], tokens whose cache entries are present
    block_tables   per cache group int32 [R, blocks + 1], page of each block. The last column
                   and every block without a page hold NULL_PAGE, so that a token written past
                   its row's pages spoils nobody's cache.
    temperature, top_p, min_p   float32 [R];   top_k, seed   int64 [R]
    draft_probs    float32 [R, K, V] that the drafts were drawn from, or None for a proposer without
    Behind the R rows lies one more that no request gets, ``nobody``: it has no pages, is greedy and
    never moves on, and fills up steps of fixed size.
    """

    def __init__(
        self,
        num_rows: int,
        max_model_len: int,
        num_drafts: int,
        block_sizes: Sequence[int],
        device: torch.device,
        widths: Sequence[int] | None = None,
        by_position: Sequence[bool] | None = None,
    ) -> None:
        """``widths``: entries of each group's block table, as ``engine.cache.table_widths`` says.

        ``by_position``: whether entry i of a group's table is the page of positions
        [i * block_size, (i + 1) * block_size). Without the two, that is so in every group.
        """
        self.num_rows, self.num_drafts, self.device = num_rows, num_drafts, device
        self.nobody = num_rows
        # A row's last step may overshoot max_model_len by K drafts; its token and K new drafts follow.
        self.max_kv = max_model_len + num_drafts
        self.room = self.max_kv + 1 + num_drafts
        self.block_sizes = tuple(block_sizes)
        self.by_position = tuple(by_position) if by_position is not None else (True,) * len(self.block_sizes)
        self.blocks = list(widths) if widths is not None else [-(-self.max_kv // size) for size in block_sizes]

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        all_rows = num_rows + 1
        self.token_ids = zeros(all_rows, self.room)
        self.num_tokens, self.num_computed = zeros(all_rows), zeros(all_rows)
        self.block_tables = [zeros(all_rows, blocks + 1).fill_(NULL_PAGE) for blocks in self.blocks]
        self.temperature, self.top_p, self.min_p = (zeros(all_rows, dtype=torch.float32) for _ in range(3))
        self.top_k, self.seed = zeros(all_rows, dtype=torch.int64), zeros(all_rows, dtype=torch.int64)
        self.draft_probs: Tensor | None = None
        # What the host must know about sampling to skip work, without asking the device.
        self.host_greedy = np.ones(num_rows, dtype=bool)
        self.host_top_k = np.zeros(num_rows, dtype=np.int64)
        self.host_top_p, self.host_min_p = np.zeros(num_rows, dtype=bool), np.zeros(num_rows, dtype=bool)

    @property
    def view(self) -> RowView:
        return RowView(token_ids=self.token_ids, num_tokens=self.num_tokens)

    def apply(self, plan: StepPlan) -> None:
        """Take rows and add pages as the plan says; one transfer, a few indexed writes, no waiting."""
        if not plan.inits and not plan.growths:
            return
        arrays: dict[str, np.ndarray] = {}
        if plan.inits:
            arrays |= self._new_rows(plan.step, plan.inits)
        arrays |= self._new_pages(plan.step, plan.inits, plan.growths)
        new = upload(arrays, self.device)
        if plan.inits:
            self._take(new)
        for group, table in enumerate(self.block_tables):
            if f"pages{group}" in new:
                table.view(-1).index_copy_(0, new[f"blocks{group}"], new[f"pages{group}"].int())

    def _new_rows(self, step: int, inits: Sequence[RowInit]) -> dict[str, np.ndarray]:
        for init in inits:
            if not 0 <= init.row < self.num_rows:
                raise ValueError(f"step {step}: row {init.row} was taken, but rows run from 0 to {self.num_rows - 1}")
            if len(init.token_ids) > self.max_kv + 1:
                raise ValueError(
                    f"step {step}: row {init.row} was given {len(init.token_ids):,} tokens; "
                    f"a row has room for {self.max_kv + 1:,} (max_model_len and drafts)"
                )
        rows = np.array([init.row for init in inits], dtype=np.int64)
        sampling = [init.sampling for init in inits]
        temperature = np.array([s.temperature for s in sampling], dtype=np.float64)
        top_p = np.array([s.top_p for s in sampling], dtype=np.float64)
        min_p = np.array([s.min_p for s in sampling], dtype=np.float64)
        top_k = np.array([s.top_k for s in sampling], dtype=np.int64)
        # As the device sees it: a temperature below the smallest float32 is 0 there.
        greedy = temperature.astype(np.float32) == 0
        self.host_greedy[rows], self.host_top_k[rows] = greedy, top_k
        self.host_top_p[rows], self.host_min_p[rows] = top_p < 1, min_p > 0
        # "No guess" stands where the first step could look for drafts that nobody proposed.
        no_drafts = [-1] * self.num_drafts
        lengths = np.array([len(init.token_ids) for init in inits], dtype=np.int64)
        ids = chain.from_iterable(chain(init.token_ids, no_drafts) for init in inits)
        written = lengths + self.num_drafts
        return {
            "rows": rows,
            "tokens": np.fromiter(ids, np.int64, count=int(written.sum())),
            "tokens_at": _ranges(rows * self.room, written),
            "num_tokens": lengths,
            "num_computed": np.array([init.num_computed for init in inits], dtype=np.int64),
            "temperature": temperature,
            "top_p": top_p,
            "min_p": min_p,
            "top_k": top_k,
            # Seeds are 64 bits, whatever their sign.
            "seed": np.array([s.seed & (2**64 - 1) for s in sampling], dtype=np.uint64).view(np.int64),
        }

    def _take(self, new: dict[str, Tensor]) -> None:
        rows = new["rows"]
        for table in self.block_tables:
            table.index_fill_(0, rows, NULL_PAGE)
        self.token_ids.view(-1).index_copy_(0, new["tokens_at"], new["tokens"].int())
        for name in ("num_tokens", "num_computed", "temperature", "top_p", "min_p", "top_k", "seed"):
            target: Tensor = getattr(self, name)
            target.index_copy_(0, rows, new[name].to(target.dtype))

    def _new_pages(self, step: int, inits: Sequence[RowInit], growths: Sequence[PageGrowth]) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for group, blocks in enumerate(self.blocks):
            new = [(i.row, 0, i.pages[group]) for i in inits if i.pages[group]]
            new += [(g.row, g.first_block, g.pages) for g in growths if g.group == group]
            if not new:
                continue
            rows = np.array([row for row, _, _ in new], dtype=np.int64)
            first = np.array([block for _, block, _ in new], dtype=np.int64)
            counts = np.array([len(pages) for _, _, pages in new], dtype=np.int64)
            last = first + counts
            if last.max() > blocks:
                worst = int(last.argmax())
                raise ValueError(
                    f"step {step}: row {rows[worst]} was given page {last[worst]:,} of cache group {group}; its block "
                    f"table has {blocks:,} entries of {self.block_sizes[group]} tokens ({self.max_kv:,} tokens a row)"
                )
            pages = chain.from_iterable(pages for _, _, pages in new)
            arrays[f"blocks{group}"] = _ranges(rows * (blocks + 1) + first, counts)
            arrays[f"pages{group}"] = np.fromiter(pages, np.int64, count=int(counts.sum()))
        return arrays


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges starts[i], starts[i] + 1, ... of lengths[i] numbers, one after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1])
