"""Qwen2ForCausalLM and Qwen3ForCausalLM against transformers' own, and what only their own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_qwen.model import Qwen2ForCausalLM, Qwen3ForCausalLM

from vllm_core.testing import ModelConformance

ROPE = {"rope_type": "default", "rope_theta": 500.0}
BASE = {
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "use_sliding_window": True,
    "sliding_window": 10,
    "max_window_layers": 1,
    "rope_parameters": ROPE,
}
CHANGES = {
    "vocab_size": 104,
    "hidden_size": 64,
    "intermediate_size": 96,
    ("num_hidden_layers", "layer_types"): (2, ["full_attention", "sliding_attention"]),
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-2,
    "tie_word_embeddings": True,
    "rope_parameters": [ROPE | {"rope_theta": 510.0}],
    "sliding_window": [9, 11],
    "layer_types": [["full_attention"] * 3, ["full_attention", "full_attention", "sliding_attention"]],
    # Older configs have no layer_types.
    ("use_sliding_window", "layer_types"): (False, None),
    ("max_window_layers", "layer_types"): [(0, None), (2, None)],
}
UNCHANGED = {
    "num_hidden_layers": "layer_types, which transformers always writes, must have as many: changed together",
    "use_sliding_window": "false beside sliding layer_types is refused, as transformers does: changed together",
    "max_window_layers": "means something only without layer_types: changed together",
}
CANNOT = {
    "lora": "no layer takes adapters yet",
}


class TestQwen2(ModelConformance):
    architecture = "Qwen2ForCausalLM"
    config = BASE
    variants = {
        "no window": {"use_sliding_window": False},
        "tied": {"tie_word_embeddings": True},
        "no grouping": {"num_key_value_heads": 6},
    }
    changes = CHANGES | {"head_dim": 16, ("num_attention_heads", "num_key_value_heads", "head_dim"): (3, 1, 16)}
    unchanged = UNCHANGED
    cannot = CANNOT

    def test_older_configs_have_the_window_in_their_upper_layers(self, cases):
        case = cases["base"]
        case.agree_on(case.serve(layer_types=None), case.prompt(64), "without layer_types")


class TestQwen3(ModelConformance):
    architecture = "Qwen3ForCausalLM"
    config = BASE | {"head_dim": 16}
    variants = {
        "no window": {"use_sliding_window": False},
        "biases": {"attention_bias": True},
        "tied": {"tie_word_embeddings": True},
        "one kv head": {"num_key_value_heads": 1},
    }
    # The norm takes the scale out of q and k, so that larger matrices alone would not make attention pick.
    gains = {"*.q_norm.weight": 2.0}
    # In bfloat16 transformers itself is off by 0.086 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 9e-2}
    changes = CHANGES | {"head_dim": 8, "attention_bias": True}
    unchanged = UNCHANGED
    cannot = CANNOT

    def test_older_configs_write_rope_in_one_field(self, cases):
        case = cases["base"]
        case.agree_on(case.serve(rope_parameters=None, rope_theta=500.0), case.prompt(64), "rope_theta")


def layer_windows(**fields):
    model = Qwen3ForCausalLM.from_config({**BASE, **fields})
    return [layer.attention.attend.window for layer in model.layers.children()]


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({}, [None, 10, 10]),
        ({"use_sliding_window": False}, [None] * 3),
        ({"sliding_window": None}, [None] * 3),
        ({"max_window_layers": 28}, [None] * 3),
        ({"layer_types": ["sliding_attention", "full_attention", "full_attention"]}, [10, None, None]),
    ],
)
def test_a_window_is_where_the_config_wants_it(fields, windows):
    assert layer_windows(**fields) == windows


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"layer_types": ["full_attention"]}, "for each of 3 layers"),
        ({"layer_types": ["linear_attention"] * 3}, "must say full_attention or sliding_attention"),
        ({"layer_types": ["sliding_attention"] * 3, "use_sliding_window": False}, "has sliding_attention"),
    ],
)
def test_contradictory_layer_types_are_refused(fields, why):
    with pytest.raises(ValueError, match=why):
        layer_windows(**fields)


def test_a_missing_field_is_named():
    config = {name: value for name, value in BASE.items() if name != "intermediate_size"}
    with pytest.raises(ValueError, match=r"lacks 'intermediate_size', which Qwen2ForCausalLM needs"):
        Qwen2ForCausalLM.from_config(config)
