"""MistralForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

from vllm_core.interfaces.cache import FullAttentionCache, SlidingWindowCache
from vllm_core.testing import ModelConformance


class TestMistral(ModelConformance):
    architecture = "MistralForCausalLM"
    config = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 256,
        "sliding_window": 11,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    variants = {
        "no window": {"sliding_window": None},
        "hidden size over heads": {"head_dim": 8},
        "tied": {"tie_word_embeddings": True},
    }
    # In bfloat16 transformers itself is off by up to 0.016 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 2e-2}
    changes = {
        "vocab_size": 98,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": [1, 3],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        # The same shapes of all matrices.
        ("num_attention_heads", "head_dim", "num_key_value_heads"): (3, 32, 1),
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-2,
        "sliding_window": [10, 12, None],
        "no window.sliding_window": 11,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 510.0},
    }
    cannot = {
        "lora": "no layer takes adapters yet",
        "consolidated.safetensors with params.json": "Mistral's own format has no reader yet",
    }

    def test_a_config_without_head_dim_shares_the_hidden_size(self, cases):
        case = cases["hidden size over heads"]
        case.agree_on(case.serve(head_dim=None), case.prompt(64), "without head_dim")

    def test_a_null_window_keeps_all_keys_and_values(self, cases):
        for name, kind in (("base", SlidingWindowCache), ("no window", FullAttentionCache)):
            assert {type(group.spec) for group in cases[name].served.groups} == {kind}
