"""Runners of stages on a toy model: rows move on alike everywhere, with recorded steps and without."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_core.distributed.layout import Layout
from vllm_core.runner.runner import Runner
from vllm_core.runner.stage import Stage
from vllm_core.testing.ranks import Ranks

from .proposers import HiddenHead, PromptLookup
from .test_graphs import Recorder
from .test_runner import PROMPTS, SAMPLINGS, requests
from .toy import CPU, Driver, Request, ToyModel, ToyPlan, cache_plan

LAYERS = 6


class StageToy(ToyModel):
    """Some of the layers, under their numbers."""

    def __init__(self, plan, stage=None):
        super().__init__(plan, LAYERS)
        each = LAYERS // stage.forward.size
        self.owned = range(stage.forward.rank * each, (stage.forward.rank + 1) * each)

    def forward(self, x, batch):
        layers, pages = self.qkv, self.plan.pages
        self.qkv = [layers[i] for i in self.owned]
        self.plan.pages = lambda i: pages(self.owned[i])
        try:
            return super().forward(x, batch)
        finally:
            self.qkv, self.plan.pages = layers, pages


class Together:
    """The stages as one runner, as a `Driver` has it."""

    def __init__(self, ranks, propose=None, k=0, recorded=False):
        self.ranks, self.records = ranks, []
        made = ranks.run(lambda rank, groups: self._make(groups, propose, k, recorded))
        self.stages, self.records = [runner for runner, _ in made], [record for _, record in made]
        last = self.stages[-1]
        self.caches, self.num_pages, self.num_drafts = last.caches, last.num_pages, last.num_drafts

    def _make(self, groups, propose, k, recorded):
        stage = Stage.of(groups, CPU)
        plan, record = ToyPlan(), Recorder() if recorded else None
        proposer, model = propose() if propose and stage.last else None, StageToy(plan, stage)
        if proposer is not None:
            proposer.bind(model, plan)
        runner = stage.runner()(
            model, plan, cache_plan(LAYERS), 400, 8, 64, proposer, k, stage=stage, record=record,
            max_tokens=32,
        )  # fmt: skip
        if recorded:
            runner.graphs.mixed = [8, 16, 32]
            runner.graphs.warm_up()
        return runner, record

    def execute(self, plan):
        return self.ranks.run(lambda rank, _: self.stages[rank].execute(plan))[-1]


def whole():
    plan = ToyPlan()
    return Runner(ToyModel(plan, LAYERS), plan, cache_plan(LAYERS), 400, 8, 64)


@pytest.mark.parametrize("recorded", [False, True], ids=["op by op", "recorded"])
@pytest.mark.parametrize("stages", [2, 3])
def test_rows_of_all_kinds_get_the_tokens_of_one_runner(stages, recorded):
    want = Driver(whole()).generate(requests(), 14, chunk=5)
    with Ranks(Layout(pp=stages)) as ranks:
        together = Together(ranks, recorded=recorded)
        assert Driver(together).generate(requests(), 14, chunk=5) == want
        if recorded:
            assert all(sum(record.runs.values()) > 12 for record in together.records)


@pytest.mark.parametrize("recorded", [False, True], ids=["op by op", "recorded"])
@pytest.mark.parametrize("config", [{"ngram": 1}, {"taps": [1]}, {"taps": [1], "seed": 3}], ids=str)
def test_guesses_of_the_last_stage_are_verified_by_all(config, recorded):
    """``taps``: of its own layers; what they show on one runner is the last stage's to know, too."""

    def propose():
        return PromptLookup(2, config) if "ngram" in config else HiddenHead(2, config)

    want = Driver(whole()).generate(requests(), 14)
    with Ranks(Layout(pp=2)) as ranks:
        together = Together(ranks, propose, 2, recorded)
        driver = Driver(together)
        work = requests()
        got = driver.generate(work, 14)
        assert got == want or "seed" in config  # guesses with probabilities change which tokens are drawn
        # The first stage learns of the last step when it is asked for one more.
        driver.run([], [(request, 1, 0, True) for request in work])
        last, first = together.stages[-1].rows, together.stages[0].rows
        for request in work:
            known = int(first.num_tokens[request.row])
            assert known == int(last.num_tokens[request.row]) - 1
            ids = [rows.token_ids[request.row, :known].tolist() for rows in (first, last)]
            assert ids[0] == ids[1] == request.ids[:known]
            assert int(first.num_computed[request.row]) == known - 1


def test_greedy_steps_are_recorded_to_their_end_on_the_last_stage_only():
    work = [Request(i, list(prompt)) for i, prompt in enumerate(PROMPTS)]
    with Ranks(Layout(pp=2)) as ranks:
        together = Together(ranks, recorded=True)
        Driver(together).generate(work, 10)
        first, last = together.records
    assert first.ran("forward") >= 10
    assert not first.ran("greedy")
    assert last.ran("greedy") >= 10
    assert not last.ran("forward")


def test_a_row_that_another_request_takes_is_heard_of_first():
    """The word of the request before must not fall upon the new one."""
    with Ranks(Layout(pp=2)) as ranks:
        together = Together(ranks)
        driver = Driver(together)
        old = Request(0, [1, 2, 3])
        driver.run([old], [(old, 3, 0, True)])
        new = Request(0, [4, 5, 6, 7, 8], sampling=SAMPLINGS[0])
        driver.run([new], [(new, 4, 0, False)])
        driver.run([], [(new, 1, 0, True)])
        rows = together.stages[0].rows
        assert rows.token_ids[0, :5].tolist() == [4, 5, 6, 7, 8]
        assert (int(rows.num_tokens[0]), int(rows.num_computed[0])) == (5, 4)
    plain = Driver(whole())
    again = Request(0, [4, 5, 6, 7, 8], sampling=SAMPLINGS[0])
    plain.run([again], [(again, 5, 0, True)])
    assert np.array_equal(again.ids, new.ids)
