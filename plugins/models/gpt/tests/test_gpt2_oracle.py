"""GPT2LMHeadModel against transformers' own, and what only its own tests can know."""

from __future__ import annotations

import pytest
from vllm_plugin_gpt.gpt2 import GPT2LMHeadModel

from vllm_core.testing import ModelConformance
from vllm_core.testing.overlay import Overlay
from vllm_core.weights import load_weights


class TestGPT2(ModelConformance):
    architecture = "GPT2LMHeadModel"
    config = {
        "vocab_size": 71,
        "n_positions": 128,
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 3,
        "layer_norm_epsilon": 1e-3,
    }
    variants = {
        "another inner size, exact gelu": {"n_inner": 80, "activation_function": "gelu"},
        "scores scaled by layer only": {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
        "head of its own": {"tie_word_embeddings": False},
    }
    # In bfloat16 transformers itself is off by up to 0.017 of the range.
    tolerance = {"float32": 1e-4, "bfloat16": 2e-2}
    changes = {
        "vocab_size": 72,
        "n_positions": 130,
        "n_embd": 96,
        "n_layer": [1, 3],
        "n_head": 6,
        "n_inner": 96,
        "activation_function": ["gelu", "relu"],
        "layer_norm_epsilon": 1e-2,
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
        "tie_word_embeddings": False,
    }
    unread = {"add_cross_attention": "refused where it is set, before the other fields are read"}
    cannot = {
        "encoders": "a decoder that reads one is refused",
        "lora": "no layer takes adapters yet",
    }

    def test_the_first_checkpoints_name_tensors_without_a_prefix(self, cases):
        case = cases["base"]
        source = case.served.resolved.checkpoint.source
        names = [name for name in source.tensors() if name.startswith("transformer.")]
        bare = {name.removeprefix("transformer."): source.read(name) for name in names}
        load_weights(case.model, Overlay(source, bare, without=names))
        case.agree_on(case.served, case.prompt(64), "names without a prefix")


def test_a_decoder_that_reads_an_encoder_is_refused():
    with pytest.raises(ValueError, match="'add_cross_attention' in config"):
        GPT2LMHeadModel.from_config(TestGPT2.config | {"add_cross_attention": True})
