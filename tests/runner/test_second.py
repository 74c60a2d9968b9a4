"""Second models, and the steps that their proposers follow: whose caches are whose, and what a batch holds."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest
import torch

from tests.layers.test_plan import make_plan
from tests.layers.tiny import TinyLM
from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.steps import NULL_PAGE
from vllm_core.runner.runner import Runner
from vllm_core.runner.second import SecondModel, SecondModels
from vllm_core.weights.rules import Table

from .test_runner import PROMPTS, requests
from .toy import Driver, ToyModel, ToyPlan, cache_plan


def known(**config):
    return {"draft": SecondModel(target="tests.layers.tiny:TinyLM", owner="a test", config=config, checkpoint=None)}


def bound(second, **more):
    model = TinyLM.from_config({})
    plan = make_plan(second=second, weight_table=Table(TinyLM.weights), **more)
    model.bind(plan)
    return plan


def test_caches_lie_under_its_name_and_groups_know_whose_they_are():
    plan = bound(SecondModels(known(kv_heads=4, layers=1, windows=(7,))))
    draft = plan.second_model("draft", "anywhere")
    caches = plan.finish(plan_caches, None)
    names = {group.index: group.names for group in caches.groups}
    assert names == {
        0: ("layers.0.attention.attend", "layers.1.attention.attend"),
        1: ("draft.layers.0.attention.attend",),
    }
    assert (plan.groups_of(""), plan.groups_of("draft")) == ({0}, {1})
    plan.second.load(0, None)
    assert all(torch.isfinite(p).all() for p in draft.parameters())


def test_layers_of_one_shape_share_a_group():
    plan = bound(SecondModels(known()))
    plan.second_model("draft", "anywhere")
    assert len(plan.finish(plan_caches, None).groups) == 1
    assert plan.groups_of("") == plan.groups_of("draft") == {0}


def test_quantization_goes_by_the_names_of_its_own_checkpoint():
    asked = {"first": [], "second": []}

    def method(whose):
        return SimpleNamespace(linear=lambda name, shape: asked[whose].append(name))

    found = attrs.evolve(known(layers=1)["draft"], quantization=method("second"))
    second = SecondModels(find=lambda **wanted: found)
    plan = bound(second, quantization=method("first"))
    before = len(asked["first"])
    plan.second_model("draft", "anywhere")
    assert len(asked["first"]) == before > 0
    parts = ("q", "k", "v", "out", "gate", "up", "down")
    assert sorted(asked["second"]) == sorted(["head", *(f"layers.0.{part}" for part in parts)])


def test_what_cannot_be_made_is_an_error():
    with pytest.raises(ValueError, match="no place for a second model, and 'draft' was asked for"):
        make_plan().second_model("draft", "anywhere")
    plan = bound(SecondModels(known()))
    with pytest.raises(ValueError, match="no second model 'other' was chosen; chosen were draft"):
        plan.second_model("other", "anywhere")
    plan.second_model("draft", "anywhere")
    with pytest.raises(ValueError, match="'draft' was asked for twice"):
        plan.second_model("draft", "anywhere")


class Following:
    """Guesses of the truth, a fixed number of them right; notes what batches held."""

    taps: tuple[int, ...] = ()
    needs_hidden, lookahead = False, 2

    def __init__(self, truth, right):
        self.truth, self.right, self.seen, self.drawn = truth, right, [], []

    def follow(self, step):
        lengths = list(step.computed)
        for i in step.sampling:
            lengths[i] += 1
        run = step.batch("", lengths)
        ends = run.last.tolist()
        ids = [run.ids[end + 1 - n : end + 1].tolist() for end, n in zip(ends, lengths, strict=True)]
        at = [run.batch.positions[end + 1 - n : end + 1].tolist() for end, n in zip(ends, lengths, strict=True)]
        self.seen.append(dict(zip(step.rows.tolist(), zip(ids, at, strict=True), strict=True)))
        self.slots = run.batch.attention[0]
        if not step.sampling:
            return None
        ahead = step.batch("", [1] * len(step.sampling), ahead=1, sampling_only=True)
        known = step.view.num_tokens[step.sampling_rows].long()
        assert ahead.batch.positions.tolist() == known.tolist()
        assert ahead.batch.attention[0].kv_lens.tolist() == (known + 1).tolist()
        assert all(b >= n for b, n in zip(ahead.batch.attention[0].kv_bounds, (known + 1).tolist(), strict=True))
        ids = torch.full((len(known), 2), -1, dtype=torch.int32)
        for n, row in enumerate(step.sampling_rows.tolist()):
            done = int(known[n]) - len(PROMPTS[row])
            for j in range(2):
                ids[n, j] = self.truth[row][done + j] if j < self.right else 0
        return Drafts(ids=ids)


def following(right):
    plan, caches = ToyPlan(), cache_plan()
    model = ToyModel(plan)
    plain = Driver(Runner(model, plan, caches, 400, 8, 64)).generate(requests(), 24)
    plan = ToyPlan()
    plan.second, plan.groups_of = SimpleNamespace(models={}), lambda name: {0, 1}
    proposer = Following(plain, right)
    return Driver(Runner(ToyModel(plan), plan, caches, 400, 8, 64, proposer, 2)), proposer, plain


@pytest.mark.parametrize("right", [0, 1, 2])
def test_a_batch_ends_with_the_last_known_token_of_rows_that_sampled_and_with_the_chunk_of_others(right):
    driver, proposer, plain = following(right)
    work = requests()
    driver.run(work, [(work[0], len(work[0].ids), 0, True), (work[3], 5, 0, False)])
    ids, positions = proposer.seen[-1][0]
    assert ids == [*PROMPTS[0], plain[0][0]]
    assert positions == list(range(len(PROMPTS[0]) + 1))
    assert proposer.seen[-1][3] == (PROMPTS[3][:5], list(range(5)))
    emitted = driver.run([], [(work[0], 3, 2, True), (work[3], 2, 0, False)])
    assert [len(e) for e in emitted] == [right + 1, 0]
    # The last two tokens, whatever was accepted.
    assert proposer.seen[-1][0] == (work[0].ids[-2:], [len(work[0].ids) - 2, len(work[0].ids) - 1])
    assert proposer.seen[-1][3] == (PROMPTS[3][5:7], [5, 6])
    driver.run([], [(work[3], 1, 0, False)])  # nobody samples: it follows all the same
    assert proposer.seen[-1] == {3: (PROMPTS[3][7:8], [7])}


def test_tokens_behind_a_rows_pages_go_to_the_null_page():
    driver, proposer, _ = following(2)
    work = requests([0])
    driver.run(work, [(work[0], len(work[0].ids), 0, True)])
    block = driver.runner.caches.groups[0].block_size
    owned = driver.tables[0][0]
    slots = proposer.slots.slots.tolist()
    assert [slot // block for slot in slots[:-1]] == [owned[p // block] for p in range(len(slots) - 1)]
    last = len(slots) - 1
    assert slots[-1] // block == (owned[last // block] if last // block < len(owned) else NULL_PAGE)


def test_lengths_that_do_not_fit_the_rows_are_refused():
    driver, proposer, _ = following(0)
    proposer.follow = lambda step: step.batch("", [1, 1, 1])
    driver.runner._follow = proposer.follow
    work = requests([0])
    with pytest.raises(ValueError, match=r"a batch of 1 rows needs as many lengths of 1 or more, not \[1, 1, 1\]"):
        driver.run(work, [(work[0], 4, 0, False)])


def test_a_follower_that_gives_no_drafts_is_refused():
    driver, _, _ = following(0)
    driver.runner._follow = lambda step: None
    work = requests([0])
    with pytest.raises(ValueError, match="Following gave no drafts for rows that sampled"):
        driver.run(work, [(work[0], len(work[0].ids), 0, True)])
