"""Checkpoints as transformers writes them, through ``LLM``: the same greedy tokens, whatever the layout."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.loading.checkpoints import greedy, tiny_model, write
from vllm_core import LLM, SamplingParams

PROMPT = [5, 60, 70, 200, 399]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def answer(path, **settings):
    """Token ids that the engine gives."""
    with LLM(str(path), **settings) as llm:
        (output,) = llm.generate([PROMPT], GREEDY, use_tqdm=False)
        return output.outputs[0].token_ids


@pytest.fixture(scope="module")
def expected(model):
    return greedy(model, PROMPT, 12)


@pytest.mark.parametrize("shard", ["50MB", "20KB"])
def test_one_file_and_many_shards_give_the_same_tokens(model, expected, shard, tmp_path):
    path = write(tmp_path / "m", model, max_shard_size=shard)
    assert (len(list(path.glob("*.safetensors"))) > 3) == (shard == "20KB")
    assert answer(path) == expected


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_a_16_bit_checkpoint_is_computed_in_float32_if_asked(stored, tmp_path):
    model = tiny_model(dtype=stored)
    path = write(tmp_path / "m", model)
    assert answer(path, dtype="float32") == greedy(model, PROMPT, 12)


def test_a_float32_checkpoint_is_rounded_to_bfloat16_if_asked(folder, tmp_path):
    """As the same checkpoint stored in bfloat16; the weights themselves are compared, not texts."""
    from vllm_core.runner.platforms import CpuPlatform

    if "bfloat16" not in CpuPlatform().dtypes():
        pytest.skip("this processor does not multiply bfloat16")
    with LLM(str(folder), dtype="bfloat16") as llm:
        parameters = dict(llm._engine.core.executor._runner.model.named_parameters())
    stored = load_file(folder / "model.safetensors")
    assert parameters["embedding.weight"].dtype == torch.bfloat16
    assert torch.equal(parameters["embedding.weight"], stored["model.embed_tokens.weight"].bfloat16())


@pytest.mark.parametrize("with_head", [False, True])
def test_tied_embeddings_need_no_head_and_ignore_one(with_head, tmp_path):
    model = tiny_model(tie_word_embeddings=True)
    path = write(tmp_path / "m", model)
    tensors = load_file(path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    if with_head:
        tensors["lm_head.weight"] = torch.zeros_like(tensors["model.embed_tokens.weight"])  # must not be used
        save_file(tensors, path / "model.safetensors")
    assert answer(path) == greedy(model, PROMPT, 12)


def test_a_model_that_is_not_tied_names_the_head_it_lacks(folder, tmp_path):
    path = shutil.copytree(folder, tmp_path / "m")
    tensors = load_file(path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"head\.weight <- lm_head\.weight"):
        answer(path)


def test_dummy_weights_need_no_file_but_the_config(folder, tmp_path):
    (tmp_path / "m").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "m")
    first = answer(tmp_path / "m", load_format="dummy", skip_tokenizer_init=True)
    assert first == answer(tmp_path / "m", load_format="dummy", skip_tokenizer_init=True)
    assert first != answer(tmp_path / "m", load_format="dummy", skip_tokenizer_init=True, seed=7)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"not read")
    assert first == answer(tmp_path / "m", load_format="dummy", tokenizer=folder)


def test_a_file_and_a_path_object_name_the_same_model(folder, expected):
    assert answer(folder / "model.safetensors") == expected
    with LLM(folder) as llm:
        assert llm.settings.model == str(folder)


def test_the_tokenizer_of_another_folder_is_used(folder, tmp_path):
    path = shutil.copytree(folder, tmp_path / "m")
    for file in path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="comes without a tokenizer"):
        answer(path)
    with LLM(str(path), tokenizer=str(folder)) as llm:
        (output,) = llm.generate("The capital", GREEDY, use_tqdm=False)
    assert output.outputs[0].text


def test_without_a_tokenizer_ids_go_in_and_out(folder, expected):
    assert answer(folder, skip_tokenizer_init=True) == expected


def test_generation_config_gives_the_defaults_and_every_end_token(edited, expected):
    path = edited("generation_config.json", temperature=0.0, top_k=9.0, max_new_tokens=9, eos_token_id=[1, expected[4]])
    stop = expected.index(expected[4]) + 1
    with LLM(str(path)) as llm:
        assert llm.get_default_sampling_params() == SamplingParams(temperature=0, top_k=9, max_tokens=9)
        (output,) = llm.generate([PROMPT], use_tqdm=False)
        assert output.outputs[0].token_ids == expected[:stop]
        assert output.outputs[0].finish_reason == "stop"
    with LLM(str(path), generation_config="none") as llm:
        assert llm.get_default_sampling_params() == SamplingParams()
        (output,) = llm.generate([PROMPT], SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
        assert output.outputs[0].token_ids == expected[:stop]  # the end of a text is no sampling parameter


def test_overrides_replace_fields_of_the_config(folder):
    with LLM(str(folder), hf_overrides={"max_position_embeddings": 40}) as llm:
        assert llm.built.max_model_len == 40


@pytest.mark.parametrize(("tokenizer", "revision"), [("org/name", "v2"), ("org/other", None)])
def test_a_revision_is_the_models_and_its_own_tokenizers(folder, monkeypatch, tokenizer, revision):
    asked = {}

    def snapshot(repository, **options):
        asked.setdefault(repository, []).append(options["revision"])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    LLM("org/name", revision="v2", tokenizer=tokenizer).shutdown()
    assert asked["org/name"][0] == "v2"
    assert asked[tokenizer][-1] == revision
