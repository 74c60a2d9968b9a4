"""What cannot be loaded is refused: what failed, what is there, what would work."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.loading.checkpoints import write
from vllm_core import LLM
from vllm_core.plugins.errors import PluginError


def refused(path, **settings):
    with pytest.raises((ValueError, OSError, PluginError)) as error:
        LLM(str(path), **settings)
    return str(error.value)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "m")


def test_pickled_weights_are_refused_with_the_reason_and_the_way_out(copy, model):
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    message = refused(copy)
    assert "reading a pickle runs whatever code" in message
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_all_that_does_not_fit_is_named_at_once(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.0.extra.weight"] = torch.zeros(3)
    tensors["model.layers.7.self_attn.q_proj.weight"] = torch.zeros(32, 32)
    tensors["model.layers.0.mlp.gate_proj.weight"] = torch.zeros(5, 5)
    save_file(tensors, copy / "model.safetensors")
    message = refused(copy)
    for part in (
        "norm.weight <- model.norm.weight",
        "slot 'up' <- model.layers.1.mlp.up_proj.weight",
        "model.layers.0.extra.weight",
        "model.layers.7.self_attn.q_proj.weight -> layers.7.attention.qkv.weight",
        "model.layers.0.mlp.gate_proj.weight is [5, 5]",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "is cut off: its tensors need 166,"),
        (lambda data: data[:100], "is not a complete safetensors file"),
        (lambda data: b"", "is not a complete safetensors file"),
        (lambda data: b"garbage" * 999, "is not a complete safetensors file"),
        (lambda data: (4).to_bytes(8, "little") + b"{oop" + data[12:], "is not a safetensors file: bad header"),
    ],
)
def test_a_damaged_file_is_named(copy, damage, message):
    file = copy / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    told = refused(copy)
    assert message in told
    assert str(file) in told


def test_a_missing_shard_is_named(model, tmp_path):
    path = write(tmp_path / "m", model, max_shard_size="20KB")
    lost = sorted(path.glob("model-*.safetensors"))[1]
    lost.unlink()
    assert f"missing in {path}:\n    {lost.name}" in refused(path)


def test_a_folder_without_a_config_is_shown_with_its_files(copy):
    (copy / "config.json").unlink()
    message = refused(copy)
    assert "has no config.json" in message
    assert "model.safetensors" in message


def test_a_folder_without_weights_says_what_it_has_and_that_dummy_would_start(copy):
    (copy / "model.safetensors").unlink()
    message = refused(copy)
    assert "holds no weights in a format that anybody here reads" in message
    assert "tokenizer.json" in message
    assert 'load_format="dummy"' in message
    LLM(str(copy), load_format="dummy").shutdown()


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    message = refused(tmp_path / "notes.txt")
    assert "holds no weights in a format that anybody here reads" in message
    assert "a folder with config.json and *.safetensors" in message


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"architectures": ...}, ("names no architecture", "LlamaForCausalLM", "--hf-overrides")),
        ({"architectures": "LlamaForCausalLM"}, ('"architectures" in config.json must be a list of names',)),
        ({"architectures": ["LamaForCausalLM"]}, ('did you mean "LlamaForCausalLM"?',)),
        ({"hidden_size": ...}, ("config.json lacks 'hidden_size'", "LlamaForCausalLM")),
        ({"hidden_size": "32"}, ("'hidden_size' in config.json must be int, not '32'",)),
        ({"num_attention_heads": 0}, ("LlamaForCausalLM cannot be built from this config.json", "vllm-plugin-llama")),
        ({"max_position_embeddings": -5}, ('"max_position_embeddings" in config.json must be at least 1, not -5',)),
        ({"max_position_embeddings": None}, ("does not say how long a sequence may be", "--max-model-len")),
        ({"hidden_act": "swishy"}, ("hidden_act 'swishy'", "silu")),
        ({"rope_parameters": {"rope_type": "linaer"}}, ("rope variant", "default", "linaer")),
        ({"quantization_config": {"quant_method": "no-such"}}, ("no-such", "quantization_config of the checkpoint")),
        ({"eos_token_id": "</s>"}, ('"eos_token_id" of the model must be a token id', "'</s>'")),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_the_field(edited, fields, parts):
    path = edited(**fields)
    (path / "generation_config.json").unlink()
    message = refused(path)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(("field", "value"), [("temperature", -1), ("top_p", 0), ("top_k", 3.5), ("max_new_tokens", 0)])
def test_a_wrong_default_names_its_file_and_the_setting_that_goes_without(edited, field, value):
    path = edited("generation_config.json", **{field: value})
    message = refused(path)
    assert "generation_config.json: " in message
    assert 'generation_config="none"' in message
    LLM(str(path), generation_config="none").shutdown()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_position_embedding": 9}, 'did you mean "max_position_embeddings"?'),
        ({"rope_scaling": {"rope_type": "linear"}}, 'instead {"rope_parameters": ...}'),
        ({"rope_theta": 5.0}, 'instead {"rope_parameters": ...}'),
    ],
)
def test_an_override_without_effect_is_refused(folder, overrides, message):
    assert message in refused(folder, hf_overrides=overrides)


def test_nothing_is_found_under_a_name_that_is_only_a_path(tmp_path):
    for name in ("./nothing-here", str(tmp_path / "nothing")):
        message = refused(name)
        assert f'the model "{name}" was not found; tried in this order' in message
        assert "Hub      not asked" in message


def test_a_revision_is_refused_where_there_are_none(folder):
    assert "files have no revisions" in refused(folder, revision="main")


def test_a_tokenizer_folder_without_a_tokenizer_is_shown_with_its_files(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "files   none\n" in refused(folder, tokenizer=str(tmp_path / "empty"))
    assert "neither a folder here nor a Hub id" in refused(folder, tokenizer="/no/such/folder")


@pytest.mark.parametrize("tokenizer", [False, True])
def test_offline_the_cause_is_named_within_seconds(folder, tmp_path, monkeypatch, tokenizer):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    begun = time.monotonic()
    if tokenizer:
        message = refused(folder, tokenizer="org/not-cached", download_dir=str(tmp_path))
    else:
        message = refused("org/not-cached", download_dir=str(tmp_path))
    assert "HF_HUB_OFFLINE keeps this process from the network" in message
    assert time.monotonic() - begun < 10


def test_a_hub_that_nobody_answers_for_is_an_error_within_seconds(tmp_path, monkeypatch):
    """A closed port on this machine stands for "no network"."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    begun = time.monotonic()
    message = refused("org/not-cached", download_dir=str(tmp_path))
    assert "is not in the cache and the network gave" in message
    assert "copy the files here and give their folder" in message
    assert time.monotonic() - begun < 10


def test_a_config_that_is_no_json_is_named(copy):
    (copy / "config.json").write_text(json.dumps({})[:-1])
    assert f"{copy / 'config.json'} is not valid JSON" in refused(copy)
