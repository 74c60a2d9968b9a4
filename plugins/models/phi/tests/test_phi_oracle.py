"""PhiForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_phi.phi import PhiForCausalLM

from vllm_core.testing import ModelConformance

ROPE = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
BASE = {
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "layer_norm_eps": 1e-3,
    "max_position_embeddings": 256,
    "hidden_act": "gelu_new",
    "qk_layernorm": False,
    "tie_word_embeddings": False,
    "rope_parameters": ROPE,
}


class TestPhi(ModelConformance):
    architecture = "PhiForCausalLM"
    config = BASE
    variants = {
        "norms of q and k": {"qk_layernorm": True},
        "whole head rotated": {"rope_parameters": ROPE | {"partial_rotary_factor": 1.0}},
        "tied": {"tie_word_embeddings": True},
        "no grouping": {"num_key_value_heads": 6},
        "relu": {"hidden_act": "relu"},
    }
    # The norms take the scale out of q and k, so that larger matrices alone would not make attention pick.
    gains = {"*.q_layernorm.weight": 3.0}
    # In bfloat16 transformers itself is off by 0.005 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 2e-2}
    changes = {
        "vocab_size": 104,
        "hidden_size": 96,
        "intermediate_size": 96,
        "num_hidden_layers": [1, 3],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "hidden_act": ["gelu", "relu"],
        "layer_norm_eps": 1e-2,
        "qk_layernorm": True,
        "tie_word_embeddings": True,
        "rope_parameters": [ROPE | {"rope_theta": 510.0}, ROPE | {"partial_rotary_factor": 0.25}],
        # The same shapes of all matrices, cut into other heads.
        ("no grouping.num_attention_heads", "no grouping.num_key_value_heads"): (3, 3),
    }
    cannot = {
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_write_rope_beside_other_fields(self, cases):
        case = cases["whole head rotated"]
        older = case.serve(rope_parameters=None, rope_theta=500.0, partial_rotary_factor=1.0)
        case.agree_on(older, case.prompt(64), "rope_theta and partial_rotary_factor")

    def test_half_of_a_head_is_rotated_where_the_config_does_not_say(self, cases):
        case = cases["base"]
        case.agree_on(case.serve(rope_parameters=None, rope_theta=500.0), case.prompt(64), "rope_theta alone")


def test_a_missing_field_is_named():
    config = {name: value for name, value in BASE.items() if name != "intermediate_size"}
    with pytest.raises(ValueError, match=r"lacks 'intermediate_size', which PhiForCausalLM needs"):
        PhiForCausalLM.from_config(config)
