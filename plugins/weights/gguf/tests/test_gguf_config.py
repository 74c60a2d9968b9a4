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


def test_yarn_keeps_its_own_limits_and_refuses_what_is_not_read(tmp_path):
    def scaled(w):
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(4.0)
        w.add_float32("llama.rope.scaling.yarn_beta_fast", 16.0)
        w.add_float32("llama.rope.scaling.yarn_ext_factor", 1.0)

    found = made(tmp_path / "m.gguf", scaled).config["rope_scaling"]
    assert found == {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0}
    with pytest.raises(CheckpointError, match=r"rope\.scaling\.attn_factor is 0\.5, and only 1 is read"):
        made(tmp_path / "n.gguf", lambda w: (scaled(w), w.add_rope_scaling_attn_factors(0.5)))


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [(["BF16", "BF16"], "bfloat16"), (["F16", "F16"], "float16"), (["F16", "Q8_0"], "float32"), (["Q8_0"], "float32")],
)
def test_files_of_plain_numbers_say_their_dtype_and_others_count_as_float32(tmp_path, kinds, dtype):
    def matrices(w):
        w.add_tensor("output_norm.weight", np.ones(128, np.float32))
        for n, kind in enumerate(kinds):
            t = gguf.GGMLQuantizationType[kind]
            w.add_tensor(f"blk.{n}.attn_v.weight", gguf.quants.quantize(np.ones((64, 128), np.float32), t), raw_dtype=t)

    assert made(tmp_path / "m.gguf", matrices).config["torch_dtype"] == dtype


@pytest.mark.parametrize(("arch", "layers"), [("gemma2", 46), ("gemma3", 62)])
@pytest.mark.parametrize("large", [True, False])
def test_gemmas_of_27b_scale_scores_by_another_size_than_that_of_heads(tmp_path, arch, layers, large):
    w = gguf.GGUFWriter(str(tmp_path / "m.gguf"), arch)
    w.add_embedding_length(4608)
    w.add_block_count(layers if large else 26)
    w.add_head_count(32)
    w.add_head_count_kv(16)
    w.add_key_length(128)
    w.add_value_length(128)
    w.add_context_length(8192)
    w.add_feed_forward_length(36864)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_sliding_window(4096)
    finish(w)

    config = GgufCheckpoint(str(tmp_path / "m.gguf")).config
    assert config["query_pre_attn_scalar"] == (144 if large else 128)
    assert (config["head_dim"], config["rms_norm_eps"], config["sliding_window"]) == (128, 1e-6, 4096)


def test_a_folder_with_one_file_opens_and_with_two_does_not(tmp_path):
    made(tmp_path / "a.gguf")
    (tmp_path / "mmproj-a.gguf").write_bytes(b"")
    assert GgufCheckpoint(str(tmp_path)).config["hidden_size"] == 128

    made(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match="should hold one GGUF file, not 2"):
        GgufCheckpoint(str(Path(tmp_path)))
