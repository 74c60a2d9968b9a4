"""The proposers' kit passes proposers that are right and fails those that are wrong, by what is wrong with them."""

from __future__ import annotations

import pytest
import torch
import vllm_plugin_draft_model
import vllm_plugin_draft_model.proposer as drafting
import vllm_plugin_ngram.lookup as looking

from vllm_core.engine.cache.manager import CacheManager
from vllm_core.interfaces.proposer import Drafts
from vllm_core.testing import ProposerConformance
from vllm_core.testing.statistics import misfit

GREEDY = "test_greedy_tokens_are_those_of_plain_decoding"
SEEDED = "test_seeded_tokens_are_those_of_plain_decoding"
CACHED = "test_cut_prompts_cached_prefixes_and_preemption_change_no_token"
ABORTED = "test_requests_that_come_and_are_aborted_change_nothing_of_others"
ROLLBACK = "test_rollback_leaves_no_block_behind"
SAMPLED = "test_sampled_tokens_keep_their_distribution"


class Kit(ProposerConformance):
    method = "ngram"
    architecture = "LlamaForCausalLM"
    config = {
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    gains = {"*.o_proj.weight": 0.3}


class DraftKit(Kit):
    method = "draft_model"
    least_accepted = 0.95

    @classmethod
    def keys(cls, folder, vocab_size):
        return {"model": str(folder)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Each kit's fixtures, made once."""
    found = {}
    for kit in (Kit, DraftKit):
        found[kit] = kit._made(tmp_path_factory.mktemp("it"))[1], kit._made(tmp_path_factory.mktemp("t"), vocab_size=11)
    return found


def failing(kit, made, *names) -> list[str]:
    """Those of the kit's tests, with 3 guesses, that fail."""
    failed = []
    for name in names or (GREEDY, SEEDED, CACHED, ABORTED, ROLLBACK, SAMPLED):
        try:
            if name == SAMPLED:
                getattr(kit(), name)(made[kit][1], {"temperature": 1.7})
            else:
                getattr(kit(), name)(made[kit][0], 3)
        except (AssertionError, RuntimeError):
            failed.append(name)
    return failed


@pytest.mark.parametrize("kit", [Kit, DraftKit])
def test_a_right_proposer_passes(kit, made):
    assert failing(kit, made) == []


class Drawing(looking.PromptLookup):
    """Guesses drawn from all tokens alike, and ``said`` to be drawn with these chances."""

    def said(self, vocab):
        return torch.full((vocab,), 1 / vocab)

    def bind(self, model, plan):
        self.vocab = model.vocab_size
        self.noise = torch.Generator().manual_seed(0)

    def propose(self, rows, view, hidden, taps):
        shape = (len(rows), self.num_drafts)
        ids = torch.randint(0, self.vocab, shape, generator=self.noise, dtype=torch.int32)
        return Drafts(ids=ids, probs=self.said(self.vocab).expand(*shape, -1))


class Lying(Drawing):
    def said(self, vocab):
        chances = torch.arange(1, vocab + 1).float() ** 2
        return chances / chances.sum()


class Scribbling(looking.PromptLookup):
    """Writes into the rows that it may only read."""

    def propose(self, rows, view, hidden, taps):
        drafts = super().propose(rows, view, hidden, taps)
        view.token_ids[rows, view.num_tokens[rows].long() - 1] = 3
        return drafts


class Silent(looking.PromptLookup):
    def propose(self, rows, view, hidden, taps):
        return Drafts(ids=torch.full((len(rows), self.num_drafts), -1, dtype=torch.int32))


def test_drawn_guesses_with_their_chances_pass_and_seeds_then_decide_otherwise(made, monkeypatch):
    monkeypatch.setattr(looking, "PromptLookup", Drawing)
    monkeypatch.setattr(Kit, "certain", False)
    assert failing(Kit, made) == []
    monkeypatch.setattr(Kit, "certain", True)
    assert failing(Kit, made, SEEDED) == [SEEDED]


def test_wrong_chances_fail_the_distribution_and_nothing_else(made, monkeypatch):
    monkeypatch.setattr(looking, "PromptLookup", Lying)
    monkeypatch.setattr(Kit, "certain", False)
    assert failing(Kit, made) == [SAMPLED]


def test_writing_into_rows_fails(made, monkeypatch):
    monkeypatch.setattr(looking, "PromptLookup", Scribbling)
    assert failing(Kit, made, GREEDY, SEEDED) == [GREEDY, SEEDED]


def test_a_proposer_that_never_guesses_right_proves_nothing(made, monkeypatch):
    monkeypatch.setattr(looking, "PromptLookup", Silent)
    assert failing(Kit, made, GREEDY, SAMPLED) == [SAMPLED]
    monkeypatch.setattr(Kit, "least_accepted", 0.1)
    with pytest.raises(
        AssertionError, match=r"0 of \d+ guesses of greedy decoding were accepted \(0\.0%\); `least_accepted` is 10%"
    ):
        Kit().test_greedy_tokens_are_those_of_plain_decoding(made[Kit][0], 3)


class Deaf(drafting.DraftModel):
    """Looks at a prompt only when it ends."""

    def follow(self, step):
        return super().follow(step) if step.sampling else None


class Hasty(drafting.DraftModel):
    """Forgets that the last of its guesses, if accepted, was never in its own cache."""

    def follow(self, step):
        step.computed = [0 if n == 1 and i in step.sampling else n for i, n in enumerate(step.computed)]
        return super().follow(step)


class Roomless(drafting.DraftModel):
    """Asks for no pages behind the last token."""

    def bind(self, model, plan):
        super().bind(model, plan)
        self.lookahead = 0


class Trampling(drafting.DraftModel):
    """Runs the served model instead of its own, and leaves wrong entries in its cache."""

    def bind(self, model, plan):
        super().bind(model, plan)
        self.served = model

    def _forward(self, ids, run):
        return self.served.forward(self.served.embed(ids * 0, run.batch), run.batch)

    def follow(self, step):
        batch = step.batch
        step.batch = lambda name, *args, **more: batch("", *args, **more)
        return super().follow(step)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [(Deaf, CACHED), (Hasty, GREEDY), (Roomless, GREEDY), (Trampling, GREEDY)],
)
def test_a_draft_model_that_keeps_its_cache_badly_fails(made, monkeypatch, wrong, found):
    monkeypatch.setattr(drafting, "DraftModel", wrong)
    assert failing(DraftKit, made, found) == [found]


def test_pages_of_rejected_guesses_that_stay_behind_fail(made, monkeypatch):
    reserve = CacheManager.reserve

    def more(self, seq_id, num_tokens):
        return reserve(self, seq_id, min(num_tokens + 24, self.groups.max_tokens))

    monkeypatch.setattr(CacheManager, "reserve", more)
    with pytest.raises(AssertionError, match=r"cache pages; .* it needs \d+: pages of rejected guesses stayed behind"):
        Kit().test_rollback_leaves_no_block_behind(made[Kit][0], 3)


def test_pages_that_nobody_gives_back_fail(made, monkeypatch):
    monkeypatch.setattr(CacheManager, "close", lambda self, seq_id: None)
    assert failing(Kit, made, GREEDY, ROLLBACK) == [GREEDY, ROLLBACK]


def test_a_key_that_is_passed_over_in_silence_fails(made, monkeypatch):
    kit, speculating = DraftKit(), made[DraftKit][0]
    kit.test_a_key_that_it_does_not_read_ends_the_start_by_name(speculating)
    monkeypatch.setattr(vllm_plugin_draft_model, "_fault", lambda config: "")
    monkeypatch.setattr(drafting.DraftModel, "bind", lambda self, model, plan: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        kit.test_a_key_that_it_does_not_read_ends_the_start_by_name(speculating)


def test_what_it_cannot_do_needs_a_reason(monkeypatch):
    monkeypatch.setattr(Kit, "cannot", {"trees": " "})
    with pytest.raises(AssertionError, match="gives no reason for trees"):
        Kit().test_what_it_cannot_do_is_printed()
    monkeypatch.setattr(Kit, "cannot", {"trees": "chains only"})
    with pytest.raises(pytest.skip.Exception, match=r"Kit cannot: trees \(chains only\)"):
        Kit().test_what_it_cannot_do_is_printed()


def test_a_misfit_is_seen_and_a_fit_is_not():
    make = torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    drawn = torch.multinomial(p, 2000, replacement=True, generator=make)
    assert misfit(drawn, p) == ""
    assert "5 cells allow" in misfit(drawn, torch.full((5,), 0.2))
    assert "have probability 0" in misfit(drawn, torch.tensor([0.5, 0.5, 0, 0, 0]))
    assert misfit(torch.zeros(10, dtype=torch.int64), torch.tensor([1.0, 0.0])) == ""
