"""A tiny Llama with each rope type in the engine: logits against transformers, within 1e-4 of their range."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaForCausalLM

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.resolve import resolve
from vllm_core.plugins.errors import NoOffer
from vllm_core.testing.case import Case

TOLERANCE = 1e-4
LONGEST = 96  # tokens of a sequence that the kit's engine serves
TRAINED = 32
HALF = [1.0 + 0.2 * i for i in range(8)]
LONGROPE = {"short_factor": HALF, "long_factor": [2 * x for x in HALF]}
TYPES = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": TRAINED, "beta_fast": 4.0},
    "yarn, not truncated": {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": TRAINED,
                            "truncate": False, "mscale": 0.8, "mscale_all_dim": 0.5},
    "longrope": {"rope_type": "longrope", "original_max_position_embeddings": TRAINED, **LONGROPE},
    "longrope, short": {"rope_type": "longrope", "original_max_position_embeddings": 2 * LONGEST, **LONGROPE},
}  # fmt: skip
PLAIN = 500.0 ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16)
# 64 positions of pre-training: frequency 1 turns 4 times over them, no. 3 once (DeepSeek's floor and ceiling).
KEEP = 1 - ((torch.arange(8) - 1) / (3 - 1)).clamp(0, 1)
LACKED = {  # by transformers' Llama: ours, and the frequencies and attention factor to put into its model
    "ntk": ({"factor": 3.0}, (500.0 * 3) ** -(torch.arange(0, 16, 2) / 16) / 3 ** (2 / 16), 1.0),
    "dynamic": ({"alpha": 20.0}, (500.0 * 20 ** (16 / 14)) ** -(torch.arange(0, 16, 2) / 16), 1.0),
    "deepseek_yarn": (
        {"factor": 3.0, "original_max_position_embeddings": 64, "beta_fast": 4.0, "mscale": 0.7},
        PLAIN * KEEP + PLAIN / 3 * (1 - KEEP),
        1 + 0.1 * 0.7 * math.log(3),
    ),
}


def make_case(name, folder, rope, max_position_embeddings=4 * LONGEST):
    config = {
        "vocab_size": 61, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": max_position_embeddings, "rope_parameters": {"rope_theta": 500.0, **rope},
    }  # fmt: skip
    return Case(name=name, model_class=LlamaForCausalLM, config=config, folder=folder / name, tolerance=TOLERANCE)


@pytest.mark.parametrize("name", TYPES)
def test_logits_equal_those_of_transformers(name, tmp_path):
    rope = TYPES[name]
    overrides = {}
    if rope["rope_type"] == "dynamic":
        # transformers stretches by the length of this prompt, and the engine by its longest.
        case = make_case(name, tmp_path, rope, TRAINED)
        apart = {"rope_theta": 500.0, **rope, "original_max_position_embeddings": TRAINED}
        overrides = {"max_position_embeddings": LONGEST, "rope_parameters": apart}
    else:
        case = make_case(name, tmp_path, rope)
    ids = case.prompt(LONGEST)
    case.agree_on(case.serve(**overrides), ids, name)
    unscaled = {"rope_type": "default", "rope_theta": 500.0}
    case.differ_on(case.serve(max_position_embeddings=LONGEST, rope_parameters=unscaled), ids, "without scaling")


@pytest.fixture(scope="module")
def unscaled(tmp_path_factory):
    return make_case("plain", tmp_path_factory.mktemp("llama"), {"rope_type": "default"})


@pytest.mark.parametrize("kind", LACKED)
def test_logits_equal_those_of_transformers_with_published_frequencies(kind, unscaled, tmp_path):
    params, frequencies, scaling = LACKED[kind]
    case = make_case(kind, tmp_path, {"rope_type": "default"})
    served = case.serve(rope_parameters={"rope_type": kind, "rope_theta": 500.0, **params})
    ids = case.prompt(LONGEST)
    case.differ_on(served, ids, "scaled")
    rotary = case.reference.model.model.rotary_emb
    rotary.attention_scaling = scaling
    rotary.inv_freq.copy_(frequencies)
    case._known.clear()
    case.agree_on(served, ids, kind)


def test_a_wrong_field_ends_the_start_by_its_name(unscaled):
    wrong = {"rope_type": "yarn", "rope_theta": 500.0, "factr": 2.0, "factor": 2.0}
    with pytest.raises(NoOffer) as error:
        unscaled.serve(rope_parameters=wrong)
    for part in ("'factr', which this type does not read; did you mean 'factor'?", "vllm-plugin-rope-scaling"):
        assert part in str(error.value)


def test_without_the_plugin_the_error_names_it(unscaled):
    from vllm_core.plugins.index import advice

    assert advice("rope_variant", "yarn") == "pip install vllm-plugin-rope-scaling"
    assert unscaled.reference  # the checkpoint is written
    folder, rope = unscaled.folder, {"rope_type": "yarn", "rope_theta": 500.0, "factor": 2.0}
    settings = EngineSettings(
        model=str(folder),
        skip_tokenizer_init=True,
        hf_overrides={"rope_parameters": rope},
        plugins={"block": ["rope-scaling"]},
    )
    with pytest.raises(
        NoOffer, match=r"(?s)rope variant \"yarn\".*vllm-plugin-rope-scaling 0.1.0\) offers it, disabled"
    ):
        resolve(settings)
