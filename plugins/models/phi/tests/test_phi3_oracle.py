"""Phi3ForCausalLM against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_phi.phi3 import Phi3ForCausalLM, rope

from vllm_core.testing import ModelConformance

ROPE = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}
BASE = {
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 256,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "sliding_window": None,
    "pad_token_id": None,
    "eos_token_id": 2,
    "rope_parameters": ROPE,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 1.7, 3.0],
}
ORIGINAL = {"long factors": 32, "short factors": 256}  # tokens


class TestPhi3(ModelConformance):
    architecture = "Phi3ForCausalLM"
    config = BASE
    variants = {
        "window": {"sliding_window": 10},
        "partial rotary": {"rope_parameters": ROPE | {"partial_rotary_factor": 0.75}},
        "tied": {"tie_word_embeddings": True},
        "one kv head": {"num_key_value_heads": 1},
        "no grouping": {"num_key_value_heads": 6},
    }
    # In bfloat16 transformers itself is off by 0.02 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 3e-2}
    changes = {
        "vocab_size": 104,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": [1, 3],
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        # The fused matrix has the same shape, and its rows mean other heads.
        ("num_attention_heads", "num_key_value_heads"): (3, 1),
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-2,
        "sliding_window": 10,
        "window.sliding_window": [9, 11],
        "tie_word_embeddings": True,
        "rope_parameters": [ROPE | {"rope_theta": 510.0}, ROPE | {"partial_rotary_factor": 0.75}],
        "partial rotary.rope_parameters": [ROPE | {"partial_rotary_factor": 0.5}],
    }
    cannot = {
        "longrope's change of frequencies at the original length": "keys in the cache are rotated once; a plugin offers"
        " the variant and takes one set for all lengths",
        "lora": "no layer takes adapters yet",
    }

    def test_older_configs_write_rope_beside_other_fields(self, cases):
        case = cases["partial rotary"]
        older = case.serve(rope_parameters=None, rope_theta=500.0, partial_rotary_factor=0.75)
        case.agree_on(older, case.prompt(64), "rope_theta and partial_rotary_factor")


class LongRope(TestPhi3):
    """Not collected: its lengths are chosen so that transformers takes the same set of frequencies as we do."""

    variants = {
        name: {"original_max_position_embeddings": n, "rope_parameters": LONGROPE} for name, n in ORIGINAL.items()
    }


@pytest.mark.parametrize("name", ORIGINAL)
def test_long_contexts_take_longrope_from_whoever_offers_it(name, tmp_path):
    pytest.importorskip("vllm_plugin_rope_scaling", reason="no plugin here offers longrope")
    case = LongRope.make_case(name, tmp_path)
    ids = case.prompt(64)
    case.agree_on(case.served, ids, "longrope")
    scaling = {"type": "su", "short_factor": LONGROPE["short_factor"], "long_factor": LONGROPE["long_factor"]}
    older = {"rope_theta": 500.0, "partial_rotary_factor": 0.75, "rope_scaling": scaling}
    case.agree_on(case.serve(rope_parameters=None, **older), ids, "as early configs write it")
    case.differ_on(case.serve(rope_parameters=ROPE | {"partial_rotary_factor": 0.75}), ids, "without longrope")


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
def test_the_older_names_of_longrope_mean_longrope(name):
    scaling = {"type": name, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    params = rope({"max_position_embeddings": 8192, "rope_theta": 1e4, "rope_scaling": scaling})
    assert params["rope_type"] == "longrope"
    assert params["original_max_position_embeddings"] == 4096


def test_a_missing_field_is_named():
    config = {name: value for name, value in BASE.items() if name != "intermediate_size"}
    with pytest.raises(ValueError, match=r"lacks 'intermediate_size', which Phi3ForCausalLM needs"):
        Phi3ForCausalLM.from_config(config)
