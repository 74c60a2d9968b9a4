"""Which checkpoints and matrices are taken, and what is said of the others."""

from __future__ import annotations

import attrs
import pytest
import vllm_plugin_int8
from int8_references import config
from vllm_plugin_int8 import quantization_method
from vllm_plugin_int8.checkpoint import groups, unread
from vllm_plugin_int8.methods import Int8Weights, Int8WeightsAndInputs, Source
from vllm_plugin_int8.names import broken, fits
from vllm_plugin_int8.options import Int8Settings
from vllm_plugin_int8.quantization import OnlineInt8, StoredInt8

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.quantization import LinearShape
from vllm_core.interfaces.queries import QuantizationQuery
from vllm_core.plugin import Offer, Refusal

QUERY = QuantizationQuery(method="int8", config={}, dtype="float32", device=Device("cpu"))
SHAPE = LinearShape(in_size=8, out_sizes=(8,))


def ask(**changes):
    return quantization_method(attrs.evolve(QUERY, **changes), Int8Settings())


def group(**changes):
    usual = config()["config_groups"]["group_0"]
    return config(config_groups={"g": {**usual, **changes}})


def part(which, **changes):
    return group(**{which: {**config()["config_groups"]["group_0"][which], **changes}})


def test_hook_quantization_method_offers_three_names_and_nothing_else():
    assert [p.name for p in vllm_plugin_int8.provides()] == [
        "int8",
        "int8_per_channel_weight_only",
        "compressed-tensors",
    ]
    assert ask(method="fp8") is None
    assert ask().options == {"skip": [], "inputs": True}
    assert ask(method="int8_per_channel_weight_only").options == {"skip": [], "inputs": False}
    assert isinstance(ask(method="compressed-tensors", config=config()), Offer)
    skipping = quantization_method(QUERY, Int8Settings(ignore=["*.down_proj"]))
    assert skipping.options["skip"] == ["*.down_proj"]


@pytest.mark.parametrize(
    ("changes", "part_of_reason"),
    [
        ({"config": {"quant_method": "gptq", "bits": 4}}, 'is quantized by "gptq" already'),
        ({"config": config()}, 'is quantized by "compressed-tensors" already'),
        ({"config": {"bits": 4}}, 'by "a method that its config.json does not name"'),
        ({"method": "compressed-tensors"}, "the checkpoint has no quantization_config: its weights are dense"),
        ({"method": "compressed-tensors", "config": {"quant_method": "fp8"}}, 'is quantized by "fp8" already'),
        ({"device": Device("xpu")}, "it has products for CPUs and CUDA, and this is xpu"),
        ({"device": Device("cuda", name="V100", capability=(7, 0))}, r"V100 (7.0) has no 8-bit tensor cores"),
    ],
)
def test_what_is_refused_says_why(changes, part_of_reason):
    answer = ask(**changes)
    assert isinstance(answer, Refusal)
    assert part_of_reason in answer.reason
    assert answer.name == changes.get("method", "int8")


def test_a_processor_without_exact_products_has_weights_alone(monkeypatch):
    monkeypatch.setattr("vllm_plugin_int8.products.inexact_on_cpu", lambda: "a test")
    refused = ask()
    assert (refused.reason, refused.remedy.split()[1]) == ("a test", "int8_per_channel_weight_only")
    assert isinstance(ask(method="compressed-tensors", config=config()), Refusal)
    assert isinstance(ask(method="int8_per_channel_weight_only"), Offer)
    assert isinstance(ask(device=Device("cuda", capability=(9, 0))), Offer)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (config(format="marlin-24"), 'config_groups.group_0: the format "marlin-24" is not read'),
        (config(format=None), 'config_groups.group_0: the format "None" is not read'),
        (group(format="float-quantized"), 'config_groups.g: the format "float-quantized" is not read'),
        (config(quantization_status="frozen"), 'quantization_status is "frozen"'),
        (config(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme is {'num_bits': 8}, which is not read"),
        (config(sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config is"),
        (config(transform_config={"a": 1}), "transform_config is"),
        (config(config_groups={}), "config_groups is empty"),
        (config(config_groups={"g": 3}), "config_groups.g is 3, not a table"),
        (config(ignore="lm_head"), "ignore is 'lm_head', not a list"),
        (config(ignore=["re:("]), "'re:(' is no regular expression"),
        (group(targets="Linear"), "targets is 'Linear', not a list of names"),
        (group(weights=None), "weights is None, not a table"),
        (group(output_activations={"num_bits": 8}), "output_activations are quantized"),
        (part("weights", num_bits=4), "weights.num_bits is 4, and only 8 is read"),
        (part("weights", type="float"), "weights.type is 'float', and only 'int' is read"),
        (part("weights", symmetric=False), "weights.symmetric is False"),
        (part("weights", strategy="group"), "weights.strategy is 'group', and only 'channel' is read"),
        (part("weights", strategy=None), "weights.strategy is None"),
        (part("input_activations", dynamic=False), "input_activations.dynamic is False, and only True is read"),
        (part("input_activations", strategy="tensor"), "input_activations.strategy is 'tensor'"),
    ],
)  # fmt: skip
def test_each_field_that_is_not_read_is_named(changed, reason):
    assert reason in unread(changed)
    answer = ask(method="compressed-tensors", config=changed)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_what_is_written_by_llm_compressor_is_read():
    assert unread(config()) == unread(config(inputs=False)) == ""
    assert unread(config(sparsity_config={"format": "dense"}, format="naive-quantized")) == ""
    assert [g.inputs for g in groups(config())] == [True]


@pytest.mark.parametrize(
    ("name", "pattern", "does"),
    [
        ("model.layers.0.mlp.down_proj", "model.layers.0.mlp.down_proj", True),
        ("model.layers.0.mlp.down_proj", "down_proj", True),
        ("model.layers.0.mlp.down_proj", "*.down_proj", True),
        ("model.layers.0.mlp.down_proj", "own_proj", False),
        ("model.layers.10.mlp.down_proj", "model.layers.1.*", False),
        ("model.layers.1.mlp.down_proj", "model.layers.1.*", True),
        ("model.layers.1.mlp.down_proj", "re:.*down", True),
        ("model.layers.1.mlp.down_proj", "re:down", False),
        ("lm_head", "lm_head", True),
        ("Lm_head", "lm_head", False),
    ],
)
def test_patterns_mean_whole_names_or_their_ends(name, pattern, does):
    assert fits(name, pattern) == does


def test_a_wrong_regular_expression_is_named():
    assert broken(["a", "re:["]).startswith("'re:[' is no regular expression")
    with pytest.raises(ValueError, match="ignore: 're:\\['"):
        OnlineInt8({"inputs": True, "skip": ["re:["]})


def test_heads_and_skipped_matrices_stay_dense_and_others_are_made():
    made = OnlineInt8({"inputs": False, "skip": ["*.down_proj", "lm_head"]})
    assert made.linear("lm_head", SHAPE) is made.linear("embed_out", SHAPE) is made.linear("a.down_proj", SHAPE) is None
    assert type(made.linear("a.up_proj", SHAPE)) is Int8Weights
    made.bound()
    with pytest.raises(ValueError, match=r"ignore: 'a\.dwon_proj' fits no matrix"):
        OnlineInt8({"inputs": True, "skip": ["a.dwon_proj", "lm_head"]}).bound()


def test_groups_of_a_checkpoint_take_the_matrices_they_target():
    usual = config()["config_groups"]["group_0"]
    both = {
        "down": {**usual, "targets": ["re:.*down_proj"], "input_activations": None, "format": "pack-quantized"},
        "rest": {**usual, "targets": ["re:.*_proj"]},
    }
    stored = StoredInt8(config(config_groups=both))
    assert type(stored.linear("a.down_proj", SHAPE)) is Int8Weights
    assert type(stored.linear("a.up_proj", SHAPE)) is Int8WeightsAndInputs
    assert {stored.linear(f"a.{x}_proj", SHAPE).source for x in ("up", "down")} == {Source.INT8, Source.PACKED}
    assert stored.linear("lm_head", SHAPE) is stored.linear("a.router", SHAPE) is None
