"""From what a user calls a model to an open checkpoint, or an error that says what was tried."""

from __future__ import annotations

import json
import sys
import types

import attrs
import pytest
import torch

from vllm_core.plugin import BundledModel, Offer
from vllm_core.weights import CheckpointError, open_checkpoint
from vllm_core.weights.checkpoint import SafetensorsCheckpoint
from vllm_core.weights.load import load_weights


@attrs.define
class Choice:
    offer: Offer

    def load(self):
        from vllm_core.plugin import load_target

        return load_target(self.offer.target)


class Chooser:
    """Offers safetensors as the core does, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, hook, query, named=None, *, asked_by="", first=""):
        self.asked.append((hook, query, named, first))
        if not any(f.endswith(".safetensors") for f in query.files):
            raise LookupError("nobody offers this")
        return Choice(Offer(name="safetensors", target="vllm_core.weights.checkpoint:SafetensorsCheckpoint"))


class Catalog:
    def __init__(self, *models):
        self.found = [types.SimpleNamespace(entry=m, distribution="vllm-plugin-x", version="1.2") for m in models]

    def entries(self, hook):
        assert hook == "bundled_models"
        return self.found

    def find(self, hook, name):
        return next(p for p in self.found if p.entry.name == name)


def opened(model, **options):
    return open_checkpoint(str(model), choose=options.pop("choose", Chooser()), **options)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny Llama as transformers saves it: whole and in shards."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=40, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder / "whole")
    model.save_pretrained(folder / "sharded", max_shard_size="4KB")
    assert len(list((folder / "sharded").glob("*.safetensors"))) > 2
    return folder, model


@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_what_transformers_saved_is_read_back_bit_for_bit(llama, layout):
    folder, model = llama
    checkpoint = opened(folder / layout)

    state = model.state_dict()
    assert set(checkpoint.source.tensors()) == set(state)
    assert all(torch.equal(checkpoint.source.read(k), t) for k, t in state.items())
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert checkpoint.generation_config.get("eos_token_id") == 2
    assert checkpoint.tokenizer is None


def test_a_safetensors_folder_asks_for_a_format_and_puts_the_core_first(llama):
    choose = Chooser()
    opened(llama[0] / "whole", choose=choose)

    ((hook, query, named, first),) = choose.asked
    assert (hook, named, first) == ("weight_format", None, "core")
    assert query.files == tuple(sorted(query.files))
    assert "model.safetensors" in query.files


def test_a_file_beside_its_config_is_a_checkpoint(llama):
    checkpoint = opened(llama[0] / "whole" / "model.safetensors")

    assert checkpoint.config["hidden_size"] == 16
    assert len(checkpoint.source.tensors()) == 21


def test_a_named_format_is_passed_on(llama):
    choose = Chooser()
    opened(llama[0] / "whole", choose=choose, load_format="other")

    assert choose.asked[0][2] == "other"


def test_dummy_weights_need_a_config_only(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}')

    assert opened(tmp_path, load_format="dummy").config == {"architectures": ["X"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no config.json"), ("{", "is not valid JSON"), ("[]", "should hold a JSON object, not list")],
)
def test_a_bad_config_is_named(llama, tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes((llama[0] / "whole" / "model.safetensors").read_bytes())
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(CheckpointError, match=message) as e:
        opened(tmp_path)
    assert str(tmp_path) in str(e.value)


def test_a_tokenizer_beside_the_weights_is_found(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")

    assert SafetensorsCheckpoint(str(tmp_path)).tokenizer.path == str(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused_with_the_reason_and_what_would_work(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04.")

    with pytest.raises(CheckpointError, match=rf"runs whatever code(.|\n)*{name}(.|\n)*save_pretrained"):
        opened(tmp_path)


def test_a_pickle_file_itself_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    with pytest.raises(CheckpointError, match="runs whatever code"):
        opened(tmp_path / "pytorch_model.bin")


def test_other_files_leave_the_answer_to_those_who_were_asked(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")

    with pytest.raises(LookupError, match="nobody offers this"):
        opened(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the network: notes what is asked and answers with ``answer`` (a path or an error)."""
    import huggingface_hub

    seen = types.SimpleNamespace(calls=[], answer=None, files=[])

    def respond(*args, **options):
        seen.calls.append((args, options))
        if isinstance(seen.answer, Exception):
            raise seen.answer
        return str(seen.answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", respond)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", respond)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, *a, **k: seen.files)
    return seen


def bundled(path=None, error=None, hub_id=""):
    module = types.ModuleType("bundled_for_a_test")

    def locate():
        if error:
            raise error
        return str(path)

    module.locate = locate
    sys.modules["bundled_for_a_test"] = module
    return Catalog(BundledModel("Tiny-1B", "bundled_for_a_test:locate", hub_id=hub_id))


def test_a_bundled_name_opens_the_packages_files_without_the_network(llama, hub):
    checkpoint = opened("Tiny-1B", catalog=bundled(llama[0] / "whole"))

    assert checkpoint.config["hidden_size"] == 16
    assert hub.calls == []


def test_a_bundled_model_whose_package_is_missing_comes_from_the_hub(llama, hub):
    hub.answer = llama[0] / "whole"
    catalog = bundled(error=FileNotFoundError("pip install tiny"), hub_id="org/tiny")

    assert opened("Tiny-1B", catalog=catalog, revision="v2", download_dir="/d").config["hidden_size"] == 16
    ((args, options),) = hub.calls
    assert args == ("org/tiny",)
    assert (options["revision"], options["cache_dir"]) == ("v2", "/d")
    assert "*.safetensors" in options["allow_patterns"]
    assert not any(p.endswith((".bin", ".pt")) for p in options["allow_patterns"])


def test_without_package_and_network_the_error_says_how_to_get_either(hub):
    import huggingface_hub.errors as errors

    hub.answer = errors.LocalEntryNotFoundError("cannot connect")
    catalog = bundled(error=FileNotFoundError("pip install tiny"), hub_id="org/tiny")

    with pytest.raises(CheckpointError, match=r"vllm-plugin-x 1\.2: pip install tiny(.|\n)*org/tiny.*cannot connect"):
        opened("Tiny-1B", catalog=catalog)


def test_a_bundled_model_without_a_hub_id_ends_with_its_remedy(hub):
    with pytest.raises(CheckpointError, match="pip install tiny"):
        opened("Tiny-1B", catalog=bundled(error=FileNotFoundError("pip install tiny")))
    assert hub.calls == []


def test_a_locator_that_fails_is_named_with_its_package():
    with pytest.raises(CheckpointError, match=r"by   vllm-plugin-x 1\.2\n  why  ZeroDivisionError: oops"):
        opened("Tiny-1B", catalog=bundled(error=ZeroDivisionError("oops")))


def test_a_misspelt_bundled_name_names_the_nearest(hub):
    hub.answer = ValueError("no such thing")

    with pytest.raises(CheckpointError, match="nearest: Tiny-1B"):
        opened("Tiny-1b", catalog=bundled("x"))
    assert hub.calls == []


def test_a_misspelt_folder_names_its_nearest_neighbour(hub, tmp_path):
    (tmp_path / "my-model").mkdir()
    with pytest.raises(CheckpointError, match="my-modle: does not exist; nearest: my-model"):
        opened(str(tmp_path / "my-modle"))


@pytest.mark.parametrize("model", ["./nope", "/nope/at/all", "nope/model.gguf", "model.safetensors", "a/../b"])
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(hub, model):
    with pytest.raises(CheckpointError, match=r"does not exist(.|\n)*Hub      not asked"):
        opened(model)
    assert hub.calls == []


def test_one_file_of_a_repository_can_be_named(hub, llama):
    hub.answer = llama[0] / "whole" / "model.safetensors"

    opened("org/name/model.safetensors")
    assert hub.calls[0][0] == ("org/name", "model.safetensors")


def test_dummy_weights_download_no_weights(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    hub.answer = tmp_path

    opened("org/name", load_format="dummy")
    assert "*.safetensors" not in hub.calls[0][1]["allow_patterns"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["pytorch_model.bin", "config.json"], "only pickles.*runs whatever code"),
        ([".gitattributes", "m-Q4.gguf", "config.json"], r"can be named, as in org/name/m-Q4\.gguf"),
        (["README.md"], r"it has no \*\.safetensors, nor other weights"),
    ],
)
def test_a_repository_without_safetensors_says_what_it_has(hub, tmp_path, files, message):
    hub.answer, hub.files = tmp_path, files

    with pytest.raises(CheckpointError, match=message):
        opened("org/name")


def test_offline_mode_is_named_as_the_cause(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE keeps this process from the network"):
        opened("org/name-that-is-not-cached", download_dir=str(tmp_path))


def test_a_checkpoint_of_transformers_fills_a_model(llama, leaf):
    from torch import nn

    from vllm_core.interfaces.parameter import SlotRange
    from vllm_core.weights import ignore, rule

    class Embedding(nn.Module):
        weights = [rule("model.embed_tokens.{w}", "embed.{w}"), ignore("weight", "not of this test")]

    folder, reference = llama
    model = Embedding()
    model.embed = leaf(weight={"": SlotRange((40, 16))})

    load_weights(model, opened(folder / "sharded").source)

    assert torch.equal(model.embed.weight, reference.model.embed_tokens.weight)
    assert json.loads((folder / "sharded" / "config.json").read_text())["vocab_size"] == 40
