"""GPTNeoXForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import torch

from vllm_core.testing import ModelConformance
from vllm_core.testing.overlay import Overlay
from vllm_core.weights import load_weights


class TestGPTNeoX(ModelConformance):
    architecture = "GPTNeoXForCausalLM"
    config = {
        "vocab_size": 73,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-3,
        "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    }
    variants = {
        "one half after the other": {"use_parallel_residual": False},
        "no biases in attention": {"attention_bias": False},
        "tied": {"tie_word_embeddings": True},
        "whole heads turn": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}
        },
    }
    # In bfloat16 transformers itself is off by up to 0.005 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 1e-2}
    changes = {
        "vocab_size": 74,
        "hidden_size": 96,
        "intermediate_size": 96,
        "num_hidden_layers": [1, 3],
        "num_attention_heads": 6,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-2,
        "attention_bias": False,
        "use_parallel_residual": False,
        "tie_word_embeddings": True,
        "rope_parameters": [
            {"rope_type": "default", "rope_theta": 510.0, "partial_rotary_factor": 0.5},
            {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.75},
        ],
    }
    cannot = {
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_have_names_of_their_own_for_rope(self, cases):
        case = cases["base"]
        older = case.serve(rope_parameters=None, rotary_emb_base=500, rotary_pct=0.5)
        case.agree_on(older, case.prompt(64), "rotary_emb_base and rotary_pct")

    def test_older_checkpoints_have_another_name_for_the_head_and_keep_masks(self, cases):
        case = cases["base"]
        source = case.served.resolved.checkpoint.source
        head = {name for name in ("lm_head.weight", "embed_out.weight") if name in source.tensors()}
        (stored,) = head
        (other,) = {"lm_head.weight", "embed_out.weight"} - head
        added = {other: source.read(stored), "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 9, 9)}
        report = load_weights(case.model, Overlay(source, added, without=[stored]))
        assert list(report.ignored) == ["gpt_neox.layers.0.attention.bias"]
        case.agree_on(case.served, case.prompt(64), "the older name")
