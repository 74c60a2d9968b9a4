"""Rows and inputs of a model with all five kinds of cache, on tables that the cache manager makes."""

import pytest
import torch

from vllm_core.engine.cache import CacheManager, table_widths
from vllm_core.interfaces.cache import (
    CacheGroup,
    CachePlan,
    CrossAttentionCache,
    FullAttentionCache,
    LatentCache,
    RecurrentCache,
    SlidingWindowCache,
)
from vllm_core.interfaces.steps import PageGrowth, RowInit, RowSampling, StepPlan
from vllm_core.runner.inputs import prepare
from vllm_core.runner.runner import make_rows

HEAD = {"num_kv_heads": 1, "k_dim": 4, "v_dim": 4, "dtype": "float32"}
KINDS = {  # spec and block size
    "full": (FullAttentionCache(**HEAD), 4),
    "window": (SlidingWindowCache(window=6, **HEAD), 4),
    "latent": (LatentCache(latent_dim=6, rope_dim=2, dtype="float32"), 2),
    "recurrent": (RecurrentCache(shapes=((4, 8),), dtypes=("float32",)), 8),
    "cross": (CrossAttentionCache(**HEAD), 4),
}
FULL, WINDOW, LATENT, RECURRENT, CROSS = range(5)
LENGTH, DRAFTS, ENCODER = 32, 2, 10  # tokens; a block of every kind is passed on the way
PROMPT = 13


def cache_plan() -> CachePlan:
    groups = [
        CacheGroup(index=i, spec=spec, names=(name,), block_size=size)
        for i, (name, (spec, size)) in enumerate(KINDS.items())
    ]
    return CachePlan(groups=tuple(groups), page_bytes=128, num_tensors=1)


class Sequence:
    """One request from its prompt to its last token: the manager's tables beside the runner's."""

    row = 2

    def __init__(self):
        plan = cache_plan()
        self.manager = CacheManager(plan, 80, max_model_len=LENGTH, num_drafts=DRAFTS)
        self.rows = make_rows(plan, 4, LENGTH, DRAFTS, torch.device("cpu"), max_encoder_tokens=ENCODER)
        self.tokens = list(range(100, 100 + PROMPT))
        self.step = 0

    def start(self):
        self.manager.open("a", self.tokens, encoder_tokens=ENCODER, encoder_key=b"sound")
        admission = self.manager.admit("a", budget=PROMPT)
        init = RowInit(
            row=self.row,
            token_ids=self.tokens[:],
            num_computed=admission.num_computed,
            pages=admission.pages,
            sampling=RowSampling(temperature=0),
        )
        return self.run(PROMPT, 0, [init], [])

    def go_on(self):
        """Decode one token with two drafts, both rejected."""
        end = len(self.tokens) + DRAFTS
        growths = [PageGrowth(self.row, *growth) for growth in self.manager.reserve("a", end)]
        return self.run(1 + DRAFTS, DRAFTS, [], growths)

    def run(self, tokens, drafts, inits, growths):
        plan = StepPlan(
            step=self.step,
            inits=inits,
            growths=growths,
            copies=self.manager.take_copies(),
            rows=[self.row],
            num_tokens=[tokens],
            num_drafts=[drafts],
            samples=[True],
            kv_bounds=[len(self.tokens) + drafts],
        )
        self.rows.apply(plan)
        inputs = prepare(plan, self.rows)
        self.manager.launched(self.step, ["a"])
        return inputs

    def end_step(self):
        """The device and the host learn of one new token."""
        self.rows.num_computed[self.row] = len(self.tokens)
        self.tokens.append(len(self.tokens))
        self.rows.num_tokens[self.row] = len(self.tokens)
        self.manager.retired(self.step)
        self.manager.advance("a", len(self.tokens) - 1)
        self.step += 1

    def tables(self):
        return [list(table.pages) for table in self.manager.sequences["a"].tables]


def test_every_kind_of_table_grows_to_the_last_token_as_the_manager_says():
    sequence = Sequence()
    inputs = sequence.start()
    while True:
        for group, pages in enumerate(sequence.tables()):
            told = sequence.rows.block_tables[group][sequence.row, : len(pages)].tolist()
            if group == WINDOW:  # blocks behind the window are freed by the host, and no longer read
                told = [page if kept else 0 for page, kept in zip(told, pages, strict=True)]
            assert told == pages, (group, sequence.step)
            seen = inputs.batch.attention[group].block_table[0].tolist()
            assert seen == sequence.rows.block_tables[group][sequence.row, : len(seen)].tolist()
        sequence.end_step()
        if len(sequence.tokens) == LENGTH:
            break
        inputs = sequence.go_on()
    assert sequence.step > 15


def test_recurrent_and_cross_layers_see_the_rows_whole_table_from_the_first_step():
    widths = table_widths(cache_plan(), max_model_len=LENGTH, num_drafts=DRAFTS, max_encoder_tokens=ENCODER)
    sequence = Sequence()
    steps = sequence.start().batch.attention
    assert [step.block_table.shape[1] for step in steps] == [4, 4, 7, widths[RECURRENT], widths[CROSS]]
    ring = steps[RECURRENT].block_table[0, : 1 + DRAFTS].tolist()
    assert 0 not in ring
    assert len(set(ring)) == 1 + DRAFTS
    assert 0 not in steps[CROSS].block_table[0].tolist()


def test_tokens_are_written_by_position_only_where_a_table_has_a_block_a_position():
    sequence = Sequence()
    steps = sequence.start().batch.attention
    for group in (FULL, WINDOW, LATENT):
        size, pages = cache_plan().groups[group].block_size, sequence.tables()[group]
        assert steps[group].slots.tolist() == [pages[p // size] * size + p % size for p in range(PROMPT)]
    for group in (RECURRENT, CROSS):
        assert steps[group].slots.tolist() == [0] * PROMPT  # in the page of nobody


@pytest.mark.parametrize("group", range(5))
def test_a_page_past_the_end_of_any_table_is_refused(group):
    rows = Sequence().rows
    wide = rows.blocks[group]
    growth = PageGrowth(1, group, wide - 1, [5, 6])
    plan = StepPlan(step=3, inits=[], growths=[growth], copies=[], rows=[], num_tokens=[], num_drafts=[], samples=[],
                    kv_bounds=[])  # fmt: skip
    with pytest.raises(ValueError, match=f"page {wide + 1} of cache group {group}; its block table has {wide} entries"):
        rows.apply(plan)
