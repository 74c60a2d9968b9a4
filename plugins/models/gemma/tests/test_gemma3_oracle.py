"""Gemma3ForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_gemma.gemma3 import Gemma3ForCausalLM, rope_by_type

from vllm_core.testing import ModelConformance

ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 900.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
}


class TestGemma3(ModelConformance):
    architecture = "Gemma3ForCausalLM"
    config = {
        "vocab_size": 79,
        "hidden_size": 40,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 256,
        "query_pre_attn_scalar": 12,
        "sliding_window": 11,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": ROPE,
    }
    variants = {
        "logits capped": {"final_logit_softcapping": 5.0},
        "biases": {"attention_bias": True, "num_key_value_heads": 2},
        "head of its own": {"tie_word_embeddings": False},
    }
    # In bfloat16 transformers itself is off by up to 0.09 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 1e-1}
    changes = {
        "vocab_size": 80,
        "hidden_size": 64,
        "intermediate_size": 96,
        ("num_hidden_layers", "layer_types"): (2, ["sliding_attention"] * 2),
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "hidden_activation": "silu",
        "rms_norm_eps": 1e-2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "query_pre_attn_scalar": 13,
        "final_logit_softcapping": 5.0,
        "logits capped.final_logit_softcapping": [5.1, None],
        "sliding_window": [10, 12, None],
        "layer_types": [["sliding_attention", "full_attention", "sliding_attention"], ["full_attention"] * 3],
        "rope_parameters": [
            ROPE | {"full_attention": {"rope_type": "default", "rope_theta": 920.0}},
            ROPE | {"sliding_attention": {"rope_type": "default", "rope_theta": 71.0}},
        ],
    }
    unchanged = {"num_hidden_layers": "layer_types must be as many; both are changed together"}
    unread = {"use_bidirectional_attention": "refused where it is set, before the other fields are read"}
    cannot = {
        "images": "Gemma3ForConditionalGeneration is another architecture, which nobody serves yet",
        "embedding": "models whose tokens see later ones are refused",
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_write_two_bases(self, cases):
        case = cases["base"]
        served = case.serve(rope_parameters=None, rope_theta=900.0, rope_local_base_freq=70.0)
        case.agree_on(served, case.prompt(64), "rope_theta and rope_local_base_freq")


def windows(**fields) -> list[int | None]:
    model = Gemma3ForCausalLM.from_config(TestGemma3.config | {"layer_types": None, "num_hidden_layers": 7} | fields)
    return [layer.attention.attend.window for layer in model.layers.children()]


def test_older_configs_write_how_often_all_tokens_are_seen():
    assert windows() == [11, 11, 11, 11, 11, None, 11]
    assert windows(sliding_window_pattern=3) == [11, 11, None, 11, 11, None, 11]


def test_a_scaled_rope_is_that_of_layers_that_see_all_tokens():
    scaling = {"rope_type": "linear", "factor": 8.0}
    ropes = rope_by_type({"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": scaling})
    assert ropes["full_attention"] == scaling | {"rope_theta": 1e6}
    assert ropes["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}


def test_models_that_look_both_ways_are_refused():
    with pytest.raises(ValueError, match="'use_bidirectional_attention' makes embeddings"):
        Gemma3ForCausalLM.from_config(TestGemma3.config | {"use_bidirectional_attention": True})
