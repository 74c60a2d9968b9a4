"""Architectures without a plugin of their own, through the fallback, against transformers' own."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.testing import ModelConformance
from vllm_core.testing.case import Case, whole
from vllm_core.testing.compare import assert_agree, distance
from vllm_core.testing.reference import build
from vllm_core.testing.reference_fields import other_values
from vllm_core.weights import WeightsError, load_weights

ROPE = {"rope_type": "default", "rope_theta": 500.0}
BASE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": ROPE,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Fallback(ModelConformance):
    """The kit, less the tests that ask for a `Config`: the fallback's is transformers' own."""

    matter: ClassVar[set[str]] = {"hidden_act", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"}
    """Fields of the base config that change logits, so that the test of them proves something."""
    cannot = {
        "a Config of its own": "it reads what transformers' class reads; each field is compared with that instead",
        "batch invariance": "operations between transformers' layers are torch's, which promise none",
        "lora": "transformers' layers take no adapters of ours",
        "quantization": "transformers' layers hold plain weights",
        "ranks": "the layers are transformers' and know no ranks",
    }
    test_every_config_field_is_changed_or_explained = None
    test_a_config_without_a_field_means_what_it_means_to_transformers = None
    test_no_field_that_transformers_reads_is_overlooked = None
    test_a_changed_config_field_breaks_the_comparison = None

    def test_a_changed_config_field_changes_it_as_it_changes_transformers(self, base: Case) -> None:
        """Beyond the kit: with another value the logits are not only other ones, but those of transformers."""
        ids, model = base.prompt(40), base.reference.model
        fields, matters = model.config.to_dict(), set()
        for name in sorted(type(model).config_class().to_dict().keys() - self.unread):
            for value in other_values(name, fields.get(name)):
                try:
                    changed = build(base.model_class, {**base.config, name: value})
                    fits = _give_weights(changed, model)
                    want = base.reference.logits_of(changed, ids)
                except Exception:
                    continue  # transformers refuses the value
                if not fits:
                    with pytest.raises(WeightsError):
                        base.serve(**{name: value})
                elif distance(want, base.want(ids)) > base.tolerance:
                    matters.add(name)
                    got = whole(base.serve(**{name: value}), ids)
                    assert_agree(got, want, base.tolerance, f"{name} = {value!r}")
        assert self.matter <= matters, f"{', '.join(self.matter - matters)} should matter to transformers, and does not"


def _give_weights(model: Any, source: Any) -> bool:
    """Those of ``source``, less what is tied to others; whether names and shapes are the same."""
    tied = model.all_tied_weights_keys
    weights = {name: tensor for name, tensor in source.state_dict().items() if name not in tied}
    try:
        found = model.load_state_dict(weights, strict=False)
    except RuntimeError:
        return False
    return not found.unexpected_keys and set(found.missing_keys) <= set(tied)


class TestOlmo2(Fallback):
    architecture = "Olmo2ForCausalLM"
    config = BASE | {"rms_norm_eps": 1e-3}
    gains = {"*.q_norm.weight": 2.0}
    tolerance = {"float32": 1e-4, "bfloat16": 9e-2}

    def test_a_checkpoint_of_the_base_model_has_shorter_names(self, cases):
        case = cases["base"]
        served = case.serve()
        load_weights(served.runner.model, Shortened(served.resolved.checkpoint.source))
        case.agree_on(served, case.prompt(64), "without the prefix")


class Shortened:
    """A weight source whose names lack "model."."""

    def __init__(self, source):
        self.source = source
        self.long = {name.removeprefix("model."): name for name in source.tensors()}

    def tensors(self):
        known = self.source.tensors()
        return {short: attrs.evolve(known[name], name=short) for short, name in self.long.items()}

    def read(self, name, slices=()):
        return self.source.read(self.long[name], slices)


class TestCohere2(Fallback):
    """Logits are scaled; sliding layers rotate, full ones have no positions; attention and MLP side by side."""

    architecture = "Cohere2ForCausalLM"
    config = BASE | {
        "layer_norm_eps": 1e-3,
        "sliding_window": 10,
        "layer_types": ["sliding_attention", "full_attention"],
        "logit_scale": 0.3,
        "tie_word_embeddings": True,
    }
    matter: ClassVar[set[str]] = {"hidden_act", "layer_norm_eps", "logit_scale", "sliding_window", "rope_parameters"}


class TestGptOss(Fallback):
    """Sinks, a sliding window, experts stored as they run, biases everywhere, YaRN."""

    architecture = "GptOssForCausalLM"
    config = BASE | {
        "head_dim": 16,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "sliding_window": 10,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 4.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 64,
        },
    }
    matter: ClassVar[set[str]] = {"rms_norm_eps", "sliding_window", "rope_parameters", "num_experts_per_tok"}


class TestOlmoe(Fallback):
    """Experts one by one in the checkpoint, stacked when they run."""

    architecture = "OlmoeForCausalLM"
    config = BASE | {"num_experts": 3, "num_experts_per_tok": 2, "rms_norm_eps": 1e-3}
    gains = {"*.q_norm.weight": 3.0}
    matter: ClassVar[set[str]] = {"hidden_act", "rms_norm_eps", "rope_parameters", "num_experts_per_tok", "clip_qkv"}


class TestGranite(Fallback):
    """Embeddings, residuals, scores and logits are scaled, each by a field of its own."""

    architecture = "GraniteForCausalLM"
    config = BASE | {
        "rms_norm_eps": 1e-3,
        "embedding_multiplier": 1.5,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.5,
        "logits_scaling": 0.8,
    }
    matter: ClassVar[set[str]] = {
        "embedding_multiplier",
        "residual_multiplier",
        "attention_multiplier",
        "logits_scaling",
        "rope_parameters",
    }


class TestSmolLM3(Fallback):
    """Layers without positions between layers with them."""

    architecture = "SmolLM3ForCausalLM"
    config = BASE | {"no_rope_layers": [1, 0], "rms_norm_eps": 1e-3, "use_sliding_window": False}
    matter: ClassVar[set[str]] = {"hidden_act", "rms_norm_eps", "rope_parameters"}
