"""Olmo2ForCausalLM against a reference, in every mode of the engine."""

from __future__ import annotations

from vllm_core.testing import ModelConformance


class TestOlmo2(ModelConformance):
    architecture = "Olmo2ForCausalLM"
    config = {
        "vocab_size": 103,
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "rms_norm_eps": 0.001,
        "pad_token_id": None,
    }
    # One for each branch of the model.
    variants = {
        "attention bias": {"attention_bias": True},
        "one kv head": {"num_key_value_heads": 1},
        "other head": {"tie_word_embeddings": True},
    }
    # Another value for each field of Config; each must break the comparison.
    changes = {
        "vocab_size": 104,
        "hidden_size": 96,
        "intermediate_size": 96,
        "num_hidden_layers": [2, 4],
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 0.01,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 510.0},
    }
    # The norm takes the scale out of q and k, so that larger matrices alone would not make attention pick.
    gains = {"*.q_*norm.weight": 2.0}
    cannot = {"lora": "no layer takes adapters yet"}
