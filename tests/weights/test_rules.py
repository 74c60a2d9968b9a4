"""Weight rules: from checkpoint names to parameters and back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vllm_core.weights import Table, ignore, rule
from vllm_core.weights.errors import RuleError
from vllm_core.weights.rules import Ignored
from vllm_core.weights.transforms import Interleaved, Split, Stacked, Transposed

LLAMA = [
    rule("model.embed_tokens.{w}", "embed.{w}"),
    rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
    rule("model.layers.{i}.self_attn.o_proj.{w}", "layers.{i}.attention.out.{w}"),
    rule("model.layers.{i}.mlp.{x:gate|up}_proj.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
    rule("model.layers.{i}.mlp.down_proj.{w}", "layers.{i}.mlp.down.{w}"),
    rule("model.layers.{i}.input_layernorm.{w}", "layers.{i}.attention.norm.{w}"),
    rule("model.layers.{i}.post_attention_layernorm.{w}", "layers.{i}.mlp.norm.{w}"),
    rule("model.norm.{w}", "norm.{w}"),
    rule("lm_head.{w}", "head.{w}"),
    ignore("rotary_emb.inv_freq", "computed, not loaded"),
]


def test_captures_carry_layer_slot_and_parameter_to_the_target():
    found = Table(LLAMA).match("model.layers.12.self_attn.k_proj.weight_scale")

    assert found[:3] == ("layers.12.attention.qkv", "weight_scale", "k")


def test_a_parameter_of_the_model_itself_has_the_empty_path():
    assert Table([rule("logit_scale", "scale")]).match("logit_scale")[:3] == ("", "scale", "")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.x.mlp.down_proj.weight",  # not a number
        "model.layers.1.self_attn.r_proj.weight",  # not one of the words
        "model.layers.1.mlp.down_proj.weight.extra",  # {w} is one segment
        "model.layers.1.mlp.down_proj",
        "xmodel.norm.weight",
        "modelXnorm.weight",  # a dot is a dot
    ],
)
def test_a_name_that_no_rule_covers_matches_nothing(name):
    assert Table(LLAMA).match(name) is None


def test_ignored_tensors_keep_their_reason_and_match_by_whole_last_segments():
    table = Table(LLAMA)

    found = table.match("model.layers.3.self_attn.rotary_emb.inv_freq")
    assert isinstance(found, Ignored)
    assert found.reason == "computed, not loaded"
    assert table.match("rotary_emb.inv_freq")
    assert table.match("model.my_rotary_emb.inv_freq") is None


def test_the_first_rule_that_matches_decides():
    table = Table([ignore("layers.0.norm.bias", "always zero"), rule("layers.{i}.norm.{w}", "n.{i}.{w}")])

    assert isinstance(table.match("layers.0.norm.bias"), Ignored)
    assert table.match("layers.1.norm.bias").path == "n.1"


def test_a_layer_path_leads_back_to_the_checkpoint_modules_that_fill_it():
    table = Table(LLAMA)

    assert table.sources("layers.3.attention.qkv") == [f"model.layers.3.self_attn.{x}_proj" for x in "qkv"]
    assert table.sources("layers.0.mlp.gate_up") == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    assert table.sources("embed") == ["model.embed_tokens"]
    assert table.sources("layers.3.nothing") == []


def test_an_expert_number_kept_in_the_slot_stands_at_zero_in_sources():
    table = Table([rule("m.{i}.experts.{e}.{x:w1|w3}.{w}", "l.{i}.experts.up.{w}", slot="{e}.{x}")])

    assert table.match("m.4.experts.17.w3.weight")[:3] == ("l.4.experts.up", "weight", "17.w3")
    assert table.sources("l.4.experts.up") == ["m.4.experts.0.w1", "m.4.experts.0.w3"]


def test_a_slot_leads_back_to_its_tensor():
    table = Table(LLAMA)

    assert table.names("layers.3.attention.qkv", "bias", "v") == ["model.layers.3.self_attn.v_proj.bias"]
    assert table.names("layers.3.attention.qkv", "bias", "z") == []


@pytest.mark.parametrize(
    ("transform", "slot"),
    [
        (Split(("q", "k", "v")), "k"),
        (Interleaved(("q", "k", "v")), "k"),
        (Transposed(Split(("gate", "up"))), "up"),
        (Stacked(Split(("gate", "up"))), "3.up"),
        (Stacked(), "3"),
        (None, ""),
    ],
)
def test_a_slot_of_a_transformed_tensor_leads_back_to_it(transform, slot):
    table = Table([rule("m.{i}.fused.{w}", "l.{i}.parts.{w}", transform=transform)])

    assert table.names("l.4.parts", "weight", slot) == ["m.4.fused.weight"]
    assert table.names("l.4.parts", "weight", "other") == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rule("a.{i}.{w}", "b.{j}.{w}"), r"\{j\} is not captured"),
        (lambda: rule("a.{x:q|k}.{w}", "b.{w}"), r"\{x\} is used neither .* so q, k would fill the same place"),
        (lambda: rule("a.{i}.{i}.{w}", "b.{i}.{w}"), "stands twice"),
        (lambda: rule("a.{i.{w}", "b.{w}"), "a brace is not part of a capture"),
        (lambda: ignore("a", ""), "needs a reason"),
        (lambda: Table([rule("a.{w}", "b.{w}"), rule("a.{w}", "c.{w}")]), "rule 2 can never apply(.|\n)*rule 1"),
        (lambda: Table([rule("a.{i}.{w}", "b.{i}.{w}"), ignore("a.3.bias", "why not")]), "put the narrower rule first"),
        (lambda: Table([rule("a.{x:q|k}.{w}", "b.{w}", slot="{x}"), rule("a.q.{w}", "c.{w}")]), "can never apply"),
    ],
)
def test_a_rule_that_contradicts_itself_or_an_earlier_one_is_refused(make, message):
    with pytest.raises(RuleError, match=message):
        make()


def test_rules_are_read_without_torch():
    code = "import sys, vllm_core.weights, vllm_core.weights.transforms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
