"""When the fallback serves a model, what explain says of it, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest
import torch
from vllm_plugin_transformers.causal_lm import TransformersForCausalLM
from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.fits import reason_against

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.llm import LLM
from vllm_core.engine.resolve import resolve
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.plugins.errors import NoOffer
from vllm_core.plugins.explain import format_explain

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
LATENT |= {"v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
LATENT |= {"moe_intermediate_size": 24, "first_k_dense_replace": 1}
WITHOUT_QWEN = {"block": ["qwen"]}


def config_of(architecture, **fields):
    """The content of a config.json, as transformers writes it."""
    import transformers

    kind = getattr(transformers, architecture).config_class
    known = kind().to_dict()
    made = kind(**{name: value for name, value in SIZES.items() if name in known} | fields)
    return json.loads(made.to_json_string(use_diff=False)) | {"architectures": [architecture]}


def settings(folder, **others):
    return {
        "model": str(folder),
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "max_model_len": 64,
        "max_num_seqs": 4,
        "kv_cache_memory": 1 << 20,
        **others,
    }


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    """A checkpoint of an architecture that a plugin lists."""
    import transformers

    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**SIZES, head_dim=8, initializer_range=0.4)
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def model_decision(folder, **others):
    resolved = resolve(EngineSettings(**settings(folder, **others)))
    return next(d for d in resolved.selector.decisions if d.hook == "model"), resolved


def test_a_plugin_that_lists_the_architecture_goes_before_the_fallback(qwen3):
    decision, _ = model_decision(qwen3)
    assert decision.provided.distribution == "vllm-plugin-qwen"


def test_without_that_plugin_the_fallback_serves_it_and_explain_says_why(qwen3):
    decision, resolved = model_decision(qwen3, plugins=WITHOUT_QWEN)
    assert (decision.offer.name, decision.offer.rank.name) == ("transformers", "REFERENCE")
    line = next(line for line in format_explain(resolved.selector.decisions).splitlines() if line.startswith("model "))
    assert line.split("  ")[-1].strip() == "no active plugin lists Qwen3ForCausalLM; the only offer"
    assert "vllm-plugin-transformers" in line


def test_both_give_the_same_greedy_tokens(qwen3):
    prompts = [list(range(1, n)) for n in (5, 20, 33)]
    tokens = []
    for plugins in ({}, WITHOUT_QWEN):
        with LLM(**settings(qwen3, plugins=plugins, max_num_batched_tokens=16)) as llm:
            outputs = llm.generate(
                [{"prompt_token_ids": ids} for ids in prompts],
                SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True),
                use_tqdm=False,
            )
        tokens.append([output.outputs[0].token_ids for output in outputs])
    assert tokens[0] == tokens[1]
    assert len({tuple(ids) for ids in tokens[0]}) == 3, "the model says the same to everything, which proves nothing"


def test_a_model_that_it_refuses_ends_the_start_with_the_reason(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_of("StableLmForCausalLM")))
    with pytest.raises(NoOffer) as error:
        resolve(EngineSettings(**settings(tmp_path, load_format="dummy")))
    assert 'no active plugin offers the model "StableLmForCausalLM"' in str(error.value)
    assert "does not go through the attention interface" in str(error.value)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"architectures": ["StableLmForCausalLM"]}, "_supports_attention_backend is false"),
        ({"architectures": ["MambaForCausalLM"]}, "keeps a recurrent state"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration is no decoder-only"),
        ({"architectures": ["BertForMaskedLM"]}, "AutoModelForCausalLM does not list it"),
        ({"architectures": ["OPTForCausalLM"], "is_encoder_decoder": True}, "more than a decoder of text"),
        ({"architectures": ["FuyuForCausalLM"]}, "more than a decoder of text"),
        (
            {"architectures": ["Olmo2ForCausalLM"], "quantization_config": {"quant_method": "gptq"}},
            r"its weights are quantized \(gptq\)",
        ),
        (
            {"architectures": ["Olmo2ForCausalLM"], "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type dynamic depends",
        ),
        (
            {"architectures": ["Olmo2ForCausalLM"], "rope_parameters": {"a": {"rope_type": "longrope"}}},
            "rope_type longrope depends",
        ),
        ({"architectures": ["OurForCausalLM"], "auto_map": {"AutoModel": "modeling.py"}}, "never run"),
        ({"architectures": ["OurForCausalLM"]}, "has no OurForCausalLM"),
    ],
    ids=lambda value: value["architectures"][0] if isinstance(value, dict) else "",
)
def test_what_the_config_alone_speaks_against_is_refused(config, why):
    assert re.search(why, reason_against(config))


@pytest.mark.parametrize(
    ("architecture", "fields", "why"),
    [
        ("DogeForCausalLM", {}, "DogeAttention is given a mask that is made in the model's own way"),
        ("DiffLlamaForCausalLM", {}, "DiffLlamaAttention runs several times a token"),
        ("JetMoeForCausalLM", {"kv_channels": 8}, "cannot be followed without weights"),
        ("Llama4ForCausalLM", {"num_local_experts": 2}, "of type chunked_attention"),
        ("MiniMaxForCausalLM", {"num_local_experts": 2, "head_dim": 8}, "of type linear_attention"),
        ("Lfm2ForCausalLM", {"layer_types": ["conv", "full_attention"]}, "of type conv"),
        ("BertLMHeadModel", {}, "BertSelfAttention looks at later tokens"),
        ("PhimoeForCausalLM", {"num_local_experts": 2}, r"tokens meet outside of attention \(in max\)"),
    ],
)
def test_what_only_running_the_model_shows_is_refused(architecture, fields, why):
    with pytest.raises(CannotServe, match=f"transformers' {architecture} cannot run on a paged cache: .*{why}"):
        TransformersForCausalLM.from_config(config_of(architecture, **fields))


def test_a_config_that_transformers_does_not_take_is_refused_with_its_reason():
    config = config_of("Olmo2ForCausalLM") | {"hidden_size": "large"}
    with pytest.raises(CannotServe, match=r"Olmo2Config does not take this config.json .*hidden_size"):
        TransformersForCausalLM.from_config(config)


def test_fields_that_nobody_knows_change_nothing():
    plain, more = (
        TransformersForCausalLM.from_config(config_of("Olmo2ForCausalLM") | extra) for extra in ({}, {"my_field": 3})
    )
    assert plain.attending == more.attending


def test_weights_are_not_quantized_silently(qwen3):
    with pytest.raises(CannotServe, match="leave --quantization out"):
        resolve(EngineSettings(**settings(qwen3, plugins=WITHOUT_QWEN, quantization="int8")))


def test_a_config_without_weights_runs_on_random_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_of("DeepseekV3ForCausalLM", **LATENT)))
    with LLM(**settings(tmp_path, load_format="dummy")) as llm:
        (output,) = llm.generate([{"prompt_token_ids": [1, 2, 3]}], SamplingParams(max_tokens=4, ignore_eos=True))
    assert len(output.outputs[0].token_ids) == 4
