"""Gemma2ForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_gemma.gemma2 import Gemma2ForCausalLM

from vllm_core.testing import ModelConformance


class TestGemma2(ModelConformance):
    architecture = "Gemma2ForCausalLM"
    config = {
        "vocab_size": 83,
        "hidden_size": 40,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 256,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 6.0,
        "final_logit_softcapping": 5.0,
        "sliding_window": 11,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    variants = {
        "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "biases": {"attention_bias": True},
        "head of its own, windows only": {
            "tie_word_embeddings": False,
            "layer_types": ["sliding_attention", "sliding_attention"],
        },
    }
    # In bfloat16 transformers itself is off by up to 0.03 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 5e-2}
    changes = {
        "vocab_size": 84,
        "hidden_size": 64,
        "intermediate_size": 96,
        ("num_hidden_layers", "layer_types"): (1, ["sliding_attention"]),
        "num_attention_heads": 2,
        "num_key_value_heads": 4,
        "head_dim": 8,
        # The same shapes of all matrices.
        ("num_attention_heads", "head_dim", "num_key_value_heads"): (8, 8, 4),
        "hidden_activation": "silu",
        "rms_norm_eps": 1e-2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "query_pre_attn_scalar": 23,
        "attn_logit_softcapping": [6.1, None],
        "final_logit_softcapping": [5.1, None],
        "no caps.attn_logit_softcapping": 50.0,
        "no caps.final_logit_softcapping": 30.0,
        "sliding_window": [10, 12, None],
        "layer_types": [["full_attention", "sliding_attention"], ["full_attention"] * 2],
        "rope_parameters": {"rope_type": "default", "rope_theta": 510.0},
    }
    unchanged = {"num_hidden_layers": "layer_types must be as many; both are changed together"}
    cannot = {
        "embedding": "models whose tokens see later ones are refused",
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_name_no_layer_types_and_alternate(self, cases):
        case = cases["base"]
        case.agree_on(case.serve(layer_types=None), case.prompt(64), "no layer types")


def test_layer_types_are_one_for_each_layer():
    wanted = r"must say sliding_attention or full_attention 2 times, not \['full_attention', 'linear_attention'\]"
    with pytest.raises(ValueError, match=wanted):
        Gemma2ForCausalLM.from_config(TestGemma2.config | {"layer_types": ["full_attention", "linear_attention"]})
