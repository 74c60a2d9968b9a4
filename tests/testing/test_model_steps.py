"""The model kit on steps with rejected guesses, on recorded steps, on batch invariance, and on settings."""

from __future__ import annotations

import sys
from types import ModuleType

import attrs
import pytest
import torch
import vllm_plugin_llama.model as right

from tests.testing.tiny_kit import Kit
from vllm_core.config.setting import setting
from vllm_core.runner.graphs import StepGraphs
from vllm_core.runner.static_step import Machinery


def test_a_right_model_passes(case):
    Kit().test_rejected_guesses_leave_no_trace_and_accepted_ones_count(case)
    Kit().test_under_batch_invariant_others_in_the_batch_change_no_bit(case)
    Kit().test_its_settings_are_documented(case)


def test_windows_that_pass_behind_guesses_pass_by_what_was_accepted(tmp_path):
    class Windows(Kit):
        architecture = "MistralForCausalLM"
        config = {**Kit.config, "sliding_window": 10, "head_dim": 8}

    case = Windows.make_case("base", tmp_path)
    Windows().test_rejected_guesses_leave_no_trace_and_accepted_ones_count(case)
    advance = case.served.advance
    case.served.advance = lambda work: advance([(row, max(tokens, 4)) for row, tokens in work])  # all were accepted
    with pytest.raises(AssertionError):
        Windows().test_rejected_guesses_leave_no_trace_and_accepted_ones_count(case)


def test_keys_of_rejected_guesses_that_stay_are_found(serve):
    class Keeper(right.LlamaForCausalLM):
        written = frozenset()

        def embed(self, ids, batch):
            for step in batch.attention:  # what was written once is not written again
                again = torch.tensor([slot in self.written for slot in step.slots.tolist()])
                self.written = self.written | set(step.slots.tolist())
                step.slots[again] = 0
            return super().embed(ids, batch)

    case = serve(Keeper)
    with pytest.raises(AssertionError, match=r"guesses behind it, \d of them right: logits are"):
        Kit().test_rejected_guesses_leave_no_trace_and_accepted_ones_count(case)


def test_what_mixes_rows_too_little_to_be_wrong_has_other_bits_beside_others(serve):
    class Mixing(right.LlamaForCausalLM):
        def forward(self, x, batch):
            return super().forward(x + 1e-7 * x.mean(0), batch)

    case = serve(Mixing)
    Kit().test_a_ragged_batch_gives_each_prompt_its_own_logits(case)
    with pytest.raises(AssertionError, match=r"have other bits beside 1 other rows, first at position 0"):
        Kit().test_under_batch_invariant_others_in_the_batch_change_no_bit(case)

    class Honest(Kit):
        cannot = {"batch invariance": "rows are mixed"}

    with pytest.raises(pytest.skip.Exception, match=r"Honest cannot: batch invariance \(rows are mixed\)"):
        Honest().test_under_batch_invariant_others_in_the_batch_change_no_bit(case)


class Hosted:
    """A backend that needs the host's numbers, in a step of fixed size, which has none."""

    def __init__(self, backend):
        self.backend = backend

    def begin_step(self, step):
        told = {"query_lens": step.query_starts.diff().tolist(), "kv_bounds": step.kv_lens.tolist(), "static": False}
        return self.backend.begin_step(attrs.evolve(step, **told))


def recording(case):
    """Steps of fixed size as on a GPU; here one that was "recorded" runs op by op, too."""
    runner = case.served.runner
    backends = [Hosted(backend) for backend in runner.backends]
    machinery = Machinery(runner.model, runner.rows, backends, runner.sampler, False, runner._ops, 0)
    runner.graphs = StepGraphs(machinery, lambda step: step.run, 6, 64, mixed=(8, 16, 32))
    return case


def test_recorded_steps_of_a_right_model_pass(case):
    with pytest.raises(pytest.skip.Exception, match="needs a CUDA device, where steps are recorded"):
        Kit().test_a_recorded_step_computes_what_the_step_itself_does(case)
    Kit().test_a_recorded_step_computes_what_the_step_itself_does(recording(case))


def test_padding_that_reaches_rows_is_found(serve):
    class Mixing(right.LlamaForCausalLM):
        def forward(self, x, batch):
            return super().forward(x / len(x), batch) if len(x) in (4, 8, 16) else super().forward(x, batch)

    with pytest.raises(AssertionError, match="in a recorded step, 1 tokens from position 30 on"):
        Kit().test_a_recorded_step_computes_what_the_step_itself_does(recording(serve(Mixing)))


def test_a_recorded_step_that_runs_otherwise_the_next_time_is_found(serve):
    class Counting(right.LlamaForCausalLM):
        calls = 0

        def forward(self, x, batch):
            self.calls += 1
            return super().forward(x, batch) * (1 + 1e-6 * self.calls)

    with pytest.raises(AssertionError, match=r"a recorded step of 4 rows and 4 tokens has other bits"):
        Kit().test_a_recorded_step_computes_what_the_step_itself_does(recording(serve(Counting)))


def test_a_setting_that_nobody_explains_is_named(case, monkeypatch):
    @attrs.frozen
    class Settings:
        perch_height: int = setting(3, help=" ")

    silent = ModuleType("silent_settings")
    silent.Settings = Settings
    monkeypatch.setitem(sys.modules, "silent_settings", silent)
    listings = case.served.resolved.selector.catalog._listings
    monkeypatch.setitem(listings, "llama", {**listings["llama"], "settings": ["silent_settings:Settings"]})
    with pytest.raises(AssertionError, match=r"perch_height has no help text; the README does not name perch_height"):
        Kit().test_its_settings_are_documented(case)
