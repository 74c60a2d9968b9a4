"""Metadata to config.json: the fields transformers derives from the same file, and refusals by name."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf_writing import add_tensors, finish, llama_writer
from vllm_plugin_gguf.checkpoint import GgufCheckpoint
from vllm_plugin_gguf.rope import llama3_factors

from vllm_core.weights import CheckpointError

FIELDS = [
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "vocab_size", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "attention_bias",
    "mlp_bias", "bos_token_id", "eos_token_id", "pad_token_id",
]  # fmt: skip


def made(path, change=lambda w: None, **sizes):
    writer = llama_writer(path, **sizes)
    change(writer)
    finish(writer)
    return GgufCheckpoint(str(path))


def test_the_config_is_the_models_own(tmp_path, tiny_llama):
    checkpoint = made(tmp_path / "m.gguf", lambda w: add_tensors(w, tiny_llama.state_dict(), 4, 2))

    own = tiny_llama.config.to_dict()
    ours = checkpoint.config
    assert {k: ours[k] for k in FIELDS if k in ours} == {k: own[k] for k in FIELDS if k in ours}
    assert len([k for k in FIELDS if k in ours]) == 13
    assert ours["architectures"] == ["LlamaForCausalLM"]
    assert (ours["rope_theta"], ours["rope_scaling"]) == (10000.0, None)
    assert ours["torch_dtype"] == "float32"


def test_smollm2s_config_is_the_published_one(smollm2):
    checkpoint = GgufCheckpoint(smollm2)

    # https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, config.json and generation_config.json
    published = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 100000, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True, "vocab_size": 49152,
        "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip
    assert {k: checkpoint.config[k] for k in published} == published
    assert checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_the_end_of_a_turn_ends_a_text_too(tmp_path):
    def ends(w):
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_eot_token_id(5)

    checkpoint = made(tmp_path / "m.gguf", ends)

    assert checkpoint.generation_config["eos_token_id"] == [2, 5]
    assert checkpoint.config["eos_token_id"] == 2


def test_an_unknown_architecture_is_named_with_those_known(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "mamba")
    finish(writer)

    with pytest.raises(CheckpointError, match="architecture 'mamba'; known: llama"):
        GgufCheckpoint(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.add_expert_count(8), "mixture of 8 experts"),
        (lambda w: w.add_uint16("split.count", 3), "one of 3 parts"),
        (lambda w: w.add_key_length(64), "rotates 32 of 64 elements"),
        (lambda w: w.add_string("llama.rope.scaling.type", "longrope"), "'longrope'; known: none, linear, yarn"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.ones(16, np.float32) * 3), "not those of Llama 3's rule"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        made(tmp_path / "m.gguf", lambda w: (w.add_rope_scaling_factor(2.0), change(w)))


def test_a_missing_size_is_named(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_head_count(4)
    finish(writer)

    with pytest.raises(CheckpointError, match=r"does not say llama\.embedding_length"):
        GgufCheckpoint(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(("theta", "head_dim", "factor"), [(500000.0, 128, 8.0), (500000.0, 64, 32.0)])
def test_llama_3s_frequency_factors_are_those_of_transformers(theta, head_dim, factor):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": theta}
    config = LlamaConfig(head_dim=head_dim, num_attention_heads=4, hidden_size=4 * head_dim, rope_parameters=scaling)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(torch.arange(0, head_dim, 2).double() / head_dim)

    assert np.allclose(plain / scaled.double(), llama3_factors(head_dim, theta, factor), rtol=1e-5)


def test_llama_3s_scaling_is_read_back_from_its_factors(tmp_path):
    factors = llama3_factors(32, 10000.0, 8.0).astype(np.float32)

    checkpoint = made(tmp_path / "m.gguf", lambda w: w.add_tensor("rope_freqs.weight", factors))

    assert checkpoint.config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert checkpoint.source.tensors() == {}


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaling_by_metadata_is_passed_on(tmp_path, kind):
    def scaled(w):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(4.0)
        w.add_rope_scaling_orig_ctx_len(2048)

    found = made(tmp_path / "m.gguf", scaled).config["rope_scaling"]
    assert (found["rope_type"], found["factor"]) == (kind, 4.0)
    assert found.get("original_max_position_embeddings") == (2048 if kind == "yarn" else None)


def test_a_folder_with_one_file_opens_and_with_two_does_not(tmp_path):
    made(tmp_path / "a.gguf")
    (tmp_path / "mmproj-a.gguf").write_bytes(b"")
    assert GgufCheckpoint(str(tmp_path)).config["hidden_size"] == 128

    made(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match="should hold one GGUF file, not 2"):
        GgufCheckpoint(str(Path(tmp_path)))
