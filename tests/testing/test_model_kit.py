"""The kit passes a model that is right and fails one that is wrong, in the test whose name says what is wrong."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import vllm_plugin_llama.model as right

from tests.testing.tiny_kit import Kit
from vllm_core.layers import DecoderAttention, DecoderLayer, GatedMLP, RMSNorm, Rotary
from vllm_core.testing import ModelConformance
from vllm_core.testing.compare import assert_agree, assert_differ, distance
from vllm_core.weights.rules import ignore, rule

BATCHES = [
    name for name in dir(ModelConformance) if name.startswith("test_") and ("logits" in name or "greedy" in name)
]


def failing(case) -> list[str]:
    """The kit's tests of a case that fail."""
    failed = []
    for name in BATCHES:
        try:
            getattr(Kit(), name)(case)
        except AssertionError:
            failed.append(name)
    return failed


def layer(c, i, *, rotary=True, scale=None, window=None, eps=None, act=None):
    """Llama's layer with something wrong."""
    norm = partial(RMSNorm, c.hidden_size, eps or c.rms_norm_eps)
    attention = DecoderAttention(
        hidden=c.hidden_size,
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=c.head_dim,
        norm=norm(),
        rotary=Rotary(c.head_dim, c.rope_parameters) if rotary else None,
        scale=scale,
        window=window,
    )
    return DecoderLayer(
        attention=attention, mlp=GatedMLP(c.hidden_size, c.intermediate_size, act=act or "silu", norm=norm())
    )


def test_a_right_model_passes(case):
    assert len(BATCHES) == 7
    assert failing(case) == []


@pytest.mark.parametrize(
    "wrong",
    [{"rotary": False}, {"scale": 0.36}, {"eps": 1.1e-3}, {"act": "gelu_pytorch_tanh"}],
    ids=str,
)
def test_a_wrong_layer_fails_in_every_way_of_batching(serve, monkeypatch, wrong):
    monkeypatch.setattr(right, "decoder_layer", partial(layer, **wrong))
    case = serve(right.LlamaForCausalLM)
    if "scale" in wrong:
        assert abs(wrong["scale"] - 8**-0.5) < 0.01  # the right one is 0.3536
    assert failing(case) == BATCHES


def test_a_window_that_should_not_be_there_fails_where_prompts_are_longer(serve, monkeypatch):
    monkeypatch.setattr(right, "decoder_layer", partial(layer, window=60))
    assert failing(serve(right.LlamaForCausalLM)) == [
        "test_a_prompt_in_chunks_gives_the_logits_of_the_whole",
        "test_a_whole_prompt_gives_the_references_logits",
    ]


def test_swapped_gate_and_up_matrices_fail(serve):
    class Swapped(right.LlamaForCausalLM):
        weights = [
            rule("model.layers.{i}.mlp.gate_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="up"),
            rule("model.layers.{i}.mlp.up_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="gate"),
            *(r for r in right.LlamaForCausalLM.weights if "gate" not in str(r)),
        ]

    assert failing(serve(Swapped)) == BATCHES


def test_positions_that_are_off_by_one_after_the_first_fail(serve):
    class Late(right.LlamaForCausalLM):
        def embed(self, ids, batch):
            batch.positions = batch.positions + (batch.positions > 0)
            return super().embed(ids, batch)

    assert failing(serve(Late)) == BATCHES


def test_positions_that_start_again_in_each_step_fail_where_there_are_several_steps(serve):
    class Forgetful(right.LlamaForCausalLM):
        def embed(self, ids, batch):
            starts = batch.attention[0].query_starts.long()
            batch.positions = torch.arange(len(ids)) - starts[:-1].repeat_interleave(starts.diff())
            return super().embed(ids, batch)

    found = failing(serve(Forgetful))
    assert "test_a_whole_prompt_gives_the_references_logits" not in found
    assert "test_a_ragged_batch_gives_each_prompt_its_own_logits" not in found
    assert len(found) == 5


def test_reading_what_was_never_written_is_found(serve):
    class Lossy(right.LlamaForCausalLM):
        def embed(self, ids, batch):
            for step in batch.attention:
                step.slots[-1] = step.slots[0]  # the last token's keys and values go elsewhere
            return super().embed(ids, batch)

    with pytest.raises(AssertionError, match="logits are not finite"):
        Kit().test_a_whole_prompt_gives_the_references_logits(serve(Lossy))


def test_a_tensor_without_effect_is_named(serve):
    class Flat(right.LlamaForCausalLM):
        def loaded(self):
            super().loaded()
            with torch.no_grad():
                self.norm.weight.fill_(1)

    with pytest.raises(AssertionError, match=r"agree|logits are off"):
        Kit().test_a_whole_prompt_gives_the_references_logits(serve(Flat))
    case = serve(Flat)
    case.reference.model.model.norm.weight.data.fill_(1)
    case._known.clear()
    with pytest.raises(AssertionError, match=r"does not use, or wash out, model\.norm\.weight$"):
        Kit().test_each_tensor_matters(case)

    class Inert(Kit):
        inert = {"*.norm.weight": "a test"}

    Inert().test_each_tensor_matters(case)


def test_a_tensor_called_inert_that_matters_is_named(case):
    class Inert(Kit):
        inert = {"*1.mlp.up_proj*": "it is not"}

    with pytest.raises(AssertionError, match=r"though declared inert: model\.layers\.1\.mlp\.up_proj\.weight"):
        Inert().test_each_tensor_matters(case)


def test_a_parameter_that_no_tensor_fills_is_named(serve):
    class Lonely(right.LlamaForCausalLM):
        def setup(self, plan):
            self.scale = torch.nn.Parameter(torch.ones(3))

    with pytest.raises(AssertionError, match="leaves as they were: scale"):
        Kit().test_every_parameter_is_filled_from_the_checkpoint(serve(Lonely))


def test_a_rule_that_hides_a_tensor_from_loading_does_not_hide_it_from_the_comparison(serve):
    class Hiding(right.LlamaForCausalLM):
        weights = [ignore("q_proj.weight", "a test"), *right.LlamaForCausalLM.weights]

    with pytest.raises(ValueError, match="no tensor fills"):
        Kit().test_a_whole_prompt_gives_the_references_logits(serve(Hiding))


def test_weights_that_would_hide_mistakes_are_refused(tmp_path):
    class Weak(Kit):
        gains = {"*.q_proj.weight": 0.01}

    with pytest.raises(AssertionError, match=r"it must be below 0\.7"):
        assert Weak.make_case("base", tmp_path).reference

    class Faint(Kit):
        gains = {"lm_head.weight": 0.01}

    with pytest.raises(AssertionError, match=r"it must be above 1"):
        assert Faint.make_case("base", tmp_path).reference


def test_an_architecture_that_transformers_lacks_says_what_to_override(tmp_path):
    class Unknown(Kit):
        architecture = "UnheardOfForCausalLM"

    with pytest.raises(AssertionError, match=r"has no UnheardOfForCausalLM; override reference_class"):
        Unknown.make_case("base", tmp_path)


def test_the_comparison_counts_what_is_not_finite_and_what_is_far():
    want = torch.tensor([[0.0, 1.0, 4.0], [2.0, 3.0, 1.0]])
    assert distance(want + torch.tensor([[0, 0, 0.4], [0, 0, 0]]), want) == pytest.approx(0.1)
    assert_agree(want + 4e-5, want, 1e-4, "it")
    assert_differ(want + 0.5, want, 1e-4, "it")
    with pytest.raises(AssertionError, match=r"it: logits are off by up to 1\.2e-01 .*\n  at 1 of 2 positions: 1"):
        assert_agree(want + torch.tensor([[0.0], [0.5]]), want, 1e-4, "it")
    with pytest.raises(AssertionError, match=r"not finite .*never written"):
        assert_agree(want * torch.tensor([[torch.nan], [1]]), want, 1e-4, "it")
    with pytest.raises(AssertionError, match="makes no difference"):
        assert_differ(want + 4e-5, want, 1e-4, "it")
