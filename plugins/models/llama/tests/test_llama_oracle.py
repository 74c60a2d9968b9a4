"""LlamaForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_llama.model import LlamaForCausalLM

from vllm_core.testing import ModelConformance

BASE = {
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LLAMA3_FIELDS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class TestLlama(ModelConformance):
    architecture = "LlamaForCausalLM"
    config = BASE
    variants = {
        # Apart, so that one field taken for the other shows.
        "attention biases": {"attention_bias": True},
        "mlp biases": {"mlp_bias": True},
        "tied": {"tie_word_embeddings": True},
        "llama3": {"rope_parameters": LLAMA3},
        "one kv head": {"num_key_value_heads": 1},
        "no grouping": {"num_key_value_heads": 6},
        "hidden size over heads": {"head_dim": 8},
        "gelu": {"hidden_act": "gelu_pytorch_tanh"},
    }
    # In bfloat16 transformers itself is off by up to 0.032 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 5e-2}
    changes = {
        "vocab_size": 104,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": [2, 4],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        # The same shapes of all matrices.
        ("num_attention_heads", "head_dim", "num_key_value_heads"): (3, 32, 1),
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-2,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "rope_parameters": [{"rope_type": "default", "rope_theta": 510.0}, LLAMA3],
        "attention biases.attention_bias": False,
        "mlp biases.mlp_bias": False,
        "tied.tie_word_embeddings": False,
        "gelu.hidden_act": "silu",
        "llama3.rope_parameters": [LLAMA3 | {field: LLAMA3[field] * 1.5} for field in LLAMA3_FIELDS],
    }
    cannot = {
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_write_rope_in_two_fields(self, cases):
        case = cases["llama3"]
        scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
        older = case.serve(rope_parameters=None, rope_theta=LLAMA3["rope_theta"], rope_scaling=scaling)
        case.agree_on(older, case.prompt(64), "rope_theta and rope_scaling")

    def test_what_early_configs_lack_follows_from_the_heads(self, cases):
        """Llama 2 has as many heads of keys as of queries, which share the hidden size."""
        for name, field in (("no grouping", "num_key_value_heads"), ("hidden size over heads", "head_dim")):
            case = cases[name]
            case.agree_on(case.serve(**{field: None}), case.prompt(64), f"without {field}")

    def test_llama3s_frequencies_are_this_packages_own_whoever_else_offers_rope_variants(self, cases):
        decisions = cases["llama3"].served.resolved.selector.decisions
        chosen = {(d.provided.entry.name, d.provided.distribution) for d in decisions if d.hook == "rope_variant"}
        assert chosen == {("llama3", "vllm-plugin-llama")}


def test_a_missing_field_is_named():
    config = {name: value for name, value in BASE.items() if name != "intermediate_size"}
    with pytest.raises(ValueError, match=r"lacks 'intermediate_size', which LlamaForCausalLM needs"):
        LlamaForCausalLM.from_config(config)
