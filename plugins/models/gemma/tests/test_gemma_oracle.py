"""GemmaForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import copy

import pytest
import torch
from vllm_plugin_gemma.gemma import GemmaForCausalLM

from vllm_core.testing import ModelConformance


class TestGemma(ModelConformance):
    architecture = "GemmaForCausalLM"
    config = {
        "vocab_size": 89,
        "hidden_size": 40,  # its root is no number of bfloat16
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    variants = {
        "biases and heads of their own": {"attention_bias": True, "num_key_value_heads": 4},
        "head of its own": {"tie_word_embeddings": False},
    }
    # In bfloat16 transformers itself is off by up to 0.10 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 1e-1}
    changes = {
        "vocab_size": 90,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": [1, 3],
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        # The same shapes of all matrices.
        ("num_attention_heads", "head_dim", "num_key_value_heads"): (8, 8, 2),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 510.0},
    }
    cannot = {
        "embedding": "models whose tokens see later ones are refused",
        "lora": "no layer takes adapters yet",
    }

    def test_the_first_checkpoints_call_the_approximated_gelu_gelu(self, cases):
        case = cases["base"]
        case.agree_on(case.serve(hidden_act="gelu"), case.prompt(64), "gelu")

    def test_embeddings_are_scaled_by_a_factor_that_their_dtype_holds(self, cases):
        case = cases["base-bfloat16"]
        assert case.model.factor == 6.3125 != 40**0.5
        device = case.model.embedding.weight.device
        theirs = copy.deepcopy(case.reference.model).bfloat16().to(device).model.embed_tokens
        ids = torch.arange(89, device=device)
        assert torch.equal(case.model.embed(ids, None), theirs(ids))


def test_models_that_look_both_ways_are_refused():
    with pytest.raises(ValueError, match="'use_bidirectional_attention' makes embeddings"):
        GemmaForCausalLM.from_config(TestGemma.config | {"use_bidirectional_attention": True})
