"""The kit of samplers passes right ones and fails wrong ones, in the tests whose names say what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest
import torch

from vllm_core.ops.sampler import ReferenceSampler, draw, weights
from vllm_core.testing import SamplerConformance
from vllm_core.testing.sampler_lines import SamplerLine, chances, picked
from vllm_core.testing.sampler_tokens import ASKED

PLUGIN = ("test_its_hook", "test_the_plugin_module", "test_what_it_cannot", "test_a_seed_picks")
DTYPE = "dtype"


class Kit(SamplerConformance):
    sampler = "tried"
    made = ReferenceSampler
    says = False
    # Reading values costs nothing on a CPU, and it does so there only.
    cannot = {"no waiting on a CPU": "it looks at few rows one by one"}

    def make(self, vocab):
        return self.made(None)

    def invariant(self, vocab):
        return self.says

    def place(self):
        return "cpu"


def failing(made, **changed):
    """The kit's tests that fail, whatever they raise -> what they say."""
    kit, failed = type("Tried", (Kit,), {"made": made, **changed})(), {}
    for name in dir(kit):
        if name.startswith("test_") and not name.startswith(PLUGIN):
            test = getattr(kit, name)
            typed = DTYPE in test.__func__.__code__.co_varnames[: test.__func__.__code__.co_argcount]
            try:
                test(torch.bfloat16) if typed else test()
            except pytest.skip.Exception:
                pass
            except (Exception, pytest.fail.Exception) as error:
                failed[name] = str(error)
    return failed


PROBS = "test_probabilities_are_those_of_float64"
PICKS = "test_each_token_is_the_one_that_its_noise_picks"
DRAWS = "test_draws_have_the_distribution"
OTHERS = "test_a_line_depends_on_no_other_line"
FACTS = "test_what_the_host_does_not_know_changes_nothing"
SAME = "test_the_same_question_has_the_same_answer"
GREEDY = "test_the_largest_logit_wins_at_temperature_zero_and_the_smallest_id_of_equal_ones"
GONE = "test_what_is_ruled_out_is_never_drawn"
HUGE = "test_huge_logits_and_tiny_temperatures_overflow_nowhere"
WAITS = "test_a_step_never_waits_for_the_device"


def test_the_core_s_sampler_passes_and_is_invariant():
    assert failing(ReferenceSampler, says=True) == {}


def test_a_sampler_that_draws_in_another_order_may_say_so():
    reason = {"the token that noise picks": "it draws by exponential races"}
    assert failing(Backwards, cannot={**Kit.cannot, **reason}).keys() == {GREEDY}
    assert {PICKS} <= failing(Backwards).keys()


class Backwards(ReferenceSampler):
    """From the last id to the first."""

    def __call__(self, logits, params):
        return logits.shape[1] - 1 - super().__call__(logits.flip(1), params)


class OwnNoise(ReferenceSampler):
    def __call__(self, logits, params):
        return super().__call__(logits, attrs.evolve(params, noise=torch.rand(len(logits), dtype=torch.float64)))


class Remembers(ReferenceSampler):
    calls = 0

    def __call__(self, logits, params):
        self.calls += 1
        return super().__call__(logits, attrs.evolve(params, noise=(params.noise + 0.1 * self.calls) % 1))


class Believes(ReferenceSampler):
    """What the host says lines may ask for is taken for what they do."""

    def __call__(self, logits, params):
        if params.any_top_p:
            params = attrs.evolve(params, top_p=params.top_p.clamp_max(0.5))
        return super().__call__(logits, params)


class Together(ReferenceSampler):
    """The temperature of a batch."""

    def __call__(self, logits, params):
        hottest = torch.where(params.temperature > 0, params.temperature.amax(), 0.0)
        return super().__call__(logits, attrs.evolve(params, temperature=hottest))


class NoMinP(ReferenceSampler):
    def probs(self, logits, params):
        return super().probs(logits, attrs.evolve(params, any_min_p=False))


class KFirst(ReferenceSampler):
    """One more token than top-k allows."""

    def __call__(self, logits, params):
        more = torch.where(params.top_k > 0, params.top_k + 1, 0)
        largest = params.largest_top_k and params.largest_top_k + 1
        return super().__call__(logits, attrs.evolve(params, top_k=more, largest_top_k=largest))


class LastOfEqual(ReferenceSampler):
    def __call__(self, logits, params):
        last = logits.shape[1] - 1 - logits.float().flip(1).argmax(1)
        return torch.where(params.temperature == 0, last, super().__call__(logits, params))


class Overflows(ReferenceSampler):
    def __call__(self, logits, params):
        hot = torch.where(params.temperature == 0, 1.0, params.temperature)[:, None]
        weight = (logits.float() / hot).exp()
        drawn = draw(torch.where(weight.isfinite(), weight, 0), params.noise)
        return torch.where(params.temperature == 0, logits.float().argmax(1), drawn)


class Reaches(ReferenceSampler):
    """The least likely ones have a little weight as well, those ruled out among them."""

    def __call__(self, logits, params):
        drawn = draw(weights(logits, params) + 1e-2, params.noise)
        return torch.where(params.temperature == 0, logits.float().argmax(1), drawn)


class Writes(ReferenceSampler):
    def __call__(self, logits, params):
        return super().__call__(logits.nan_to_num_(0, 0, 0).mul_(1.0).add_(1.0), params)


class Narrow(ReferenceSampler):
    def __call__(self, logits, params):
        return super().__call__(logits, params).int()


class Beyond(ReferenceSampler):
    def __call__(self, logits, params):
        return super().__call__(logits, params) + 1


class Nan(ReferenceSampler):
    """log(p) * p of what is ruled out."""

    def probs(self, logits, params):
        p = super().probs(logits, params)
        return p + 0 * (p * p.log())


@pytest.mark.parametrize(
    ("made", "tests", "words"),
    [
        (Backwards, {PICKS, GREEDY}, "was drawn"),
        (OwnNoise, {PICKS, SAME}, "other tokens for the same logits, parameters and noise"),
        (Remembers, {PICKS, SAME}, "picks token"),
        (Believes, {FACTS}, "other tokens where the host says that lines may ask for anything"),
        (Together, {OTHERS, PICKS}, "alone and"),
        (NoMinP, {PROBS}, "min-p, 15 tokens, line 0 (temperature 1, min_p 0.2): token"),
        (KFirst, {DRAWS, PICKS}, "draws have probability 0"),
        (LastOfEqual, {GREEDY}, "assert [299"),
        (Overflows, {HUGE}, "assert ["),
        (Reaches, {GONE, DRAWS}, "of (7, 33) were drawn"),
        (Writes, {PICKS, OTHERS}, "it changes the logits, which it may only read"),
        (Narrow, {PICKS}, "it gives torch.int32 (24,), not int64 (24,)"),
        (Beyond, {PICKS}, "it draws id 1 of 1 tokens"),
        (Nan, {GONE}, "probs has NaN where logits are -inf"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_sampler_fails_and_is_told_what_is_wrong(made, tests, words):
    failed = failing(made)
    assert tests <= set(failed), failed
    assert any(words in said for said in failed.values()), failed


def test_reading_values_fails_unless_that_is_said():
    assert WAITS in failing(ReferenceSampler, cannot={})
    assert "nonzero (truncation.py:" in failing(ReferenceSampler, cannot={})[WAITS]


def test_the_contract_s_distribution_is_that_of_its_words():
    p = chances(torch.tensor([0.4, 0.3, 0.2, 0.1]).double().log(), SamplerLine(top_k=2, top_p=0.65))
    assert p.tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert chances(torch.zeros(3).double(), SamplerLine(temperature=0.0)).tolist() == [1, 0, 0]
    assert chances(torch.tensor([0.0, -1000.0]).double(), SamplerLine(min_p=0.5)).tolist() == [1, 0]
    assert picked(torch.tensor([0.25, 0.5, 0.25]).double(), 0.6) == (1, False)
    assert picked(torch.tensor([0.25, 0.5, 0.25]).double(), 0.75) == (2, True)


def test_tokens_of_an_engine_that_the_noise_does_not_pick_fail():
    kit, vocab = Kit(), 8
    reference = SimpleNamespace(logits=lambda ids: torch.eye(vocab)[torch.tensor(ids)] * 50)  # each follows itself
    asks = kit.asks(vocab)
    right = [[ask.prompt[-1]] * 3 for ask in asks]
    kit.assert_picked(reference, asks, SimpleNamespace(tokens=right))
    wrong = [*right[:-1], [(right[-1][0] + 1) % vocab]]
    with pytest.raises(AssertionError, match=rf"seed {2 * len(ASKED) - 1} .* token 0 of the output: noise"):
        kit.assert_picked(reference, asks, SimpleNamespace(tokens=wrong))
