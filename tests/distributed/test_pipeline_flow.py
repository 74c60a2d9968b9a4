"""Stages at work side by side, told by what has happened, not by clocks; and the parts that a pipeline is made of."""

from __future__ import annotations

import time
from collections import defaultdict
from threading import Event

import attrs
import pytest
import torch

from tests.distributed.pipeline import Ask, engine_on, greedy, prompt, run, tokens
from tests.layers.tiny import Config, TinyLM, assert_close, plain_logits, random_tensors
from vllm_core.distributed.layout import Layout
from vllm_core.engine.cache.stages import plan_of_stage, stage_caches
from vllm_core.interfaces.cache import CacheGroup, CachePlan, DeclaredCache, FullAttentionCache, SlidingWindowCache
from vllm_core.runner.stage import Stage
from vllm_core.testing.paged import PagedModel
from vllm_core.testing.ranks import Ranks

LONG = 30.0  # seconds that nobody should need


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_all_stages_have_a_step_of_their_own_to_work_on(folder, stages):
    """The last stage holds each step until the first one has passed on as many later ones as there are others."""
    asks = [Ask(prompt(4, seed=i), greedy(30)) for i in range(7)]
    first, last = range(3 * stages, 5 * stages), stages - 1
    passed, held, plans = defaultdict(Event), {}, {}
    with engine_on(folder, stages) as engine:
        early, late = engine.core.executor.runners[0], engine.core.executor.runners[last]
        steps = {"passed": 0, "held": 0}
        forward, launch = late.model.forward, engine.core.executor.launch

        class Watched(Stage):
            def pass_on(self, hidden):
                super().pass_on(hidden)
                passed[steps["passed"]].set()
                steps["passed"] += 1

        def holding(x, batch):
            step = steps["held"]
            steps["held"] += 1
            if step in first:
                held[step] = passed[step + last].wait(LONG)
            return forward(x, batch)

        def launching(plan):
            plans[plan.step] = plan
            return launch(plan)

        early.stage = Watched(early.stage.forward, early.stage.ids)
        late.model.forward, engine.core.executor.launch = holding, launching
        together = tokens(run(engine, asks))
    assert held == dict.fromkeys(first, True)
    for step in first:
        rows = [row for ahead in range(stages) for row in plans[step + ahead].rows]
        assert len(rows) == len(set(rows)) == 7, "each request is in one step at a time, and all are in some"
    with engine_on(folder) as engine:
        assert together == tokens(run(engine, asks))


CASES = {
    "tied head": Config(layers=3, windows=(None,) * 3, tied=True),
    "windows": Config(layers=4, windows=(7, None, 7, None), post_norm=True, logit_cap=5.0),
    "the only full layer in the middle": Config(layers=3, windows=(5, None, 5), bias=True, norm="layer", sinks=True),
    "the last of two kinds alone": Config(layers=3, windows=(None, None, 6), qk_norm=True, norm="offset"),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
@pytest.mark.parametrize("stages", [2, 3])
def test_logits_of_stages_are_those_of_the_model(config, stages):
    tensors, fields = random_tensors(config), attrs.asdict(config)
    ids = [(7 * i + i // 5) % 53 for i in range(40)]
    whole = PagedModel(TinyLM, fields, tensors)

    def work(rank, groups):
        stage = Stage.of(groups, torch.device("cpu"))
        own = PagedModel(TinyLM, fields, tensors, groups=groups, plan=plan_of_stage(whole.caches))
        embed, row = stage.entry(own.model.embed), own.row()
        found = []
        for part in (ids[:21], ids[21:22], ids[22:]):
            batch = own.batch([(row, part)])
            hidden = own.model.forward(embed(torch.tensor(part), batch), batch)
            row.ids += part
            if stage.last:
                found.append(own.model.logits(hidden))
            else:
                stage.pass_on(hidden)
        held = sum(p.numel() for p in own.model.parameters())
        return torch.cat(found) if stage.last else None, held, [len(group.names) for group in own.caches.groups]

    with Ranks(Layout(pp=stages)) as ranks, torch.inference_mode():
        parts = ranks.run(work)
    assert_close(parts[-1][0], plain_logits(config, tensors, ids))
    everything = sum(p.numel() for p in whole.model.parameters())
    table = whole.model.embedding.weight.numel() if config.tied else 0
    assert sum(held for _, held, _ in parts) == everything + table  # a tied table is on both ends
    caches = [sum(counts) for counts in zip(*(counts for _, _, counts in parts), strict=True)]
    assert caches == [len(group.names) for group in whole.caches.groups]


FULL = FullAttentionCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32")
WINDOW = SlidingWindowCache(num_kv_heads=1, k_dim=4, v_dim=4, dtype="float32", window=8)
PLAN = CachePlan(
    groups=(
        CacheGroup(index=0, spec=FULL, names=("a", "b", "c"), block_size=16),
        CacheGroup(index=1, spec=WINDOW, names=("d", "e"), block_size=16),
    ),
    page_bytes=512,
    num_tensors=3,
)


def test_a_stage_has_the_groups_of_all_and_the_tensors_of_its_own():
    own = stage_caches(PLAN, [DeclaredCache(name="c", spec=FULL)])
    assert [(g.index, g.names, g.block_size) for g in own.groups] == [(0, ("c",), 16), (1, (), 16)]
    assert (own.num_tensors, own.page_bytes, own.bytes_per_page) == (1, 512, 512)
    assert stage_caches(PLAN, []).num_tensors == 0
    declared = [DeclaredCache(name=n, spec=s) for n, s in (("e", WINDOW), ("d", WINDOW), ("b", FULL))]
    own = plan_of_stage(PLAN)(declared, block_size=99)
    assert [g.names for g in own.groups] == [("b",), ("d", "e")]
    assert own.num_tensors == 2


def test_a_cache_that_another_stage_owns_cannot_be_read():
    shared = DeclaredCache(name="x", spec=FULL, shared_with="a")
    with pytest.raises(ValueError, match=r"x reads the cache of a, which is on another pipeline stage.*\n.*instead"):
        stage_caches(PLAN, [shared])
    assert stage_caches(PLAN, [shared, DeclaredCache(name="a", spec=FULL)]).groups[0].names == ("a",)
    with pytest.raises(ValueError, match=r"'a' is .*SlidingWindow.* on this pipeline stage, and FullAttention"):
        stage_caches(PLAN, [DeclaredCache(name="a", spec=WINDOW)])


def test_pages_are_as_many_as_the_stage_with_the_least_room_has(folder):
    counts = {}
    for layers in ("2,2", "3,1", "1,3"):
        with engine_on(folder, 2, pipeline_layers=layers, kv_cache_memory=120_000, max_num_seqs=64) as engine:
            runners = engine.core.executor.runners
            assert len({runner.num_pages for runner in runners}) == 1
            counts[layers] = runners[0].num_pages
            sizes = [sum(t.numel() for t in runner.pages) for runner in runners]
            assert max(sizes) <= 120_000
            assert [len(runner.pages) for runner in runners] == [int(n) for n in layers.split(",")]
            assert engine.core.capacity.caches.num_tensors == 4
    assert counts["3,1"] == counts["1,3"]
    assert counts["2,2"] == counts["3,1"] * 3 // 2


def test_what_nobody_has_asked_for_yet_keeps_longer_than_anybody_waits():
    """The first stage may be idle for as long as it likes before it hears what was sampled last."""
    with Ranks(Layout(pp=3), patience=1.0) as ranks:
        stages = ranks.run(lambda rank, groups: Stage.of(groups, torch.device("cpu")))

        def tell(rank, _):
            if stages[rank].last:
                for i in range(7):
                    stages[rank].tell(torch.full((2,), i))

        def hear(rank, _):
            own = stages[rank]
            return None if own.last else [own.hear(torch.empty(2, dtype=torch.int64)) for _ in range(7)]

        ranks.run(tell)
        time.sleep(2.5)
        heard = ranks.run(hear)
    assert [[int(x[0]) for x in each] for each in heard[:2]] == [list(range(7))] * 2
