"""``vllm-core doctor MODEL``: whether a checkpoint would start, and all that is missing, without reading a weight."""

import json

import pytest

from vllm_core.cli import main
from vllm_core.cli.doctor import torch_build
from vllm_core.plugins import index
from vllm_core.runner import host
from vllm_core.weights.safetensors import SafetensorsSource

FACTS = {
    "version": "2.9", "file": "", "cuda": None, "hip": None, "cuda_usable": False, "cuda_devices": 0,
    "threads": host.usable_cores(), "cpu_capability": "AVX2",
}  # fmt: skip

FORMAT = ("weight_format", "xyz")


@pytest.fixture(autouse=True)
def torch_works(monkeypatch):
    monkeypatch.setattr(torch_build, "_CODE", f"print({json.dumps(json.dumps(FACTS))})")


@pytest.fixture
def doctor(capsys):
    """``doctor(model, flag, ...)`` -> {name: finding about the model}, exit code."""

    def call(*words):
        code = main(["doctor", "--json", *map(str, words)])
        report = json.loads(capsys.readouterr().out)
        return {f["name"]: f for f in report["findings"] if f["section"] == "model"}, code

    return call


def test_a_sound_checkpoint_is_all_ok_and_no_weight_is_read(doctor, folder, monkeypatch):
    def read(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SafetensorsSource, "read", read)
    monkeypatch.setattr(SafetensorsSource, "read_into", read, raising=False)
    found, code = doctor(folder, "--max-num-seqs", 3)
    assert code == 0
    assert list(found) == ["files", "weights", "architecture", "engine", "memory", "tokenizer", "chat template"]
    assert {f["verdict"] for f in found.values()} == {"ok"}
    assert found["architecture"]["says"].startswith("LlamaForCausalLM by vllm-plugin-llama ")
    assert found["engine"]["facts"]["max_model_len"] == 256
    assert found["memory"]["facts"]["full_sequences"] == 3


def test_everything_that_is_missing_is_told_at_once_with_the_line_that_installs_it(doctor, edited, monkeypatch):
    known = {("model", "OwletForCausalLM"): ["vllm-plugin-owlet"], ("quantization_method", "feather"): ["some-feather"]}
    monkeypatch.setattr(index, "lookup", lambda kind, name: known.get((kind, name), []))
    path = edited(architectures=["OwletForCausalLM"], quantization_config={"quant_method": "feather"})
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (path / name).unlink()
    found, code = doctor(path, "--load-format", "dummy")
    assert code == 1
    failed = {name: f["says"] for name, f in found.items() if f["verdict"] == "fail"}
    assert set(failed) == {"architecture", "quantization", "tokenizer"}
    assert "pip install vllm-plugin-owlet" in failed["architecture"]
    assert "pip install some-feather" in failed["quantization"]
    assert "comes without a tokenizer" in failed["tokenizer"]


def test_a_blocked_model_plugin_is_named_with_its_remedy(doctor, folder):
    found, code = doctor(folder, "--plugins-block", "llama,transformers")
    assert (code, found["architecture"]["verdict"]) == (1, "fail")
    assert "disabled by block in --plugins-block" in found["architecture"]["says"]
    assert "memory" not in found
    assert found["tokenizer"]["verdict"] == "ok"


def test_a_format_that_nobody_reads_is_told_with_what_was_found_and_who_would(doctor, tmp_path, monkeypatch):
    (tmp_path / "model.xyz").write_text("x")
    found, code = doctor(tmp_path / "model.xyz")
    assert code == 1
    assert "holds no weights in a format that anybody here reads" in found["files"]["says"]
    monkeypatch.setattr(index, "lookup", lambda kind, name: ["reads-xyz"] if (kind, name) == FORMAT else [])
    assert "install pip install reads-xyz" in doctor(tmp_path / "model.xyz")[0]["files"]["says"]


def test_a_missing_shard_is_told(doctor, edited):
    path = edited()
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    found, code = doctor(path)
    assert (code, found["weights"]["verdict"]) == (1, "fail")
    assert "model-00002-of-00002.safetensors" in found["weights"]["says"]
    assert found["memory"]["verdict"] == "ok"


def test_a_model_that_is_too_large_for_the_memory_given_gets_suggestions_that_start(doctor, folder):
    found, code = doctor(folder, "--kv-cache-memory", 20_000, "--max-num-seqs", 1)
    assert (code, found["memory"]["verdict"]) == (1, "fail")
    assert "256 tokens of context (what the model was made for) do not fit" in found["memory"]["says"]
    suggested = [line.split() for line in found["memory"]["says"].splitlines() if line.startswith("    --")]
    assert suggested
    for flag, value in suggested:
        memory = [] if flag == "--kv-cache-memory" else ["--kv-cache-memory", 20_000]
        assert doctor(folder, "--max-num-seqs", 1, *memory, flag, value)[1] == 0


def test_weights_that_the_machine_has_no_memory_for_fail_before_they_are_read(doctor, edited, monkeypatch):
    monkeypatch.setattr(host, "usable_memory", lambda: 100_000)
    found, code = doctor(edited())
    assert code == 1
    assert "the weights of this model do not fit" in found["memory"]["says"]


def test_weights_that_fit_only_if_others_end_are_a_warning(doctor, folder, monkeypatch):
    monkeypatch.setattr(host, "free_memory", lambda: 100_000)
    found, code = doctor(folder, "--kv-cache-memory", "1MiB")
    assert (code, found["memory"]["verdict"]) == (0, "warn")
    assert "only 0.1 MiB are free now" in found["memory"]["says"]


def test_a_misspelt_name_gets_the_nearest(doctor, folder):
    found, code = doctor(f"{folder}x")
    assert code == 1
    assert f"nearest: {folder.name}" in found["files"]["says"]


def test_a_model_without_a_chat_template_can_generate_and_not_chat(doctor, edited):
    path = edited("tokenizer_config.json", chat_template=...)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    found, code = doctor(path)
    assert (code, found["chat template"]["verdict"]) == (0, "warn")
    assert found["chat template"]["remedy"] == "--chat-template FILE"
    found, _ = doctor(path, "--chat-template", "{{ messages }}")
    assert found["chat template"]["verdict"] == "ok"


def test_of_a_model_on_the_hub_only_the_small_files_are_fetched(doctor, folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repo, **how: asked.append(how["allow_patterns"]) or str(folder)
    )
    found, code = doctor("org/name")
    assert code == 0
    assert asked
    assert not any("*.safetensors" in patterns for patterns in asked)
    assert "not downloaded yet" in found["weights"]["says"]


def test_a_single_file_on_the_hub_is_not_fetched_to_be_looked_at(doctor, monkeypatch):
    def download(*_, **__):
        raise AssertionError("a file was downloaded")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found, code = doctor("org/name/weights.gguf")
    assert (code, found["files"]["verdict"]) == (0, "warn")
    assert "weights.gguf of org/name is not in the cache" in found["files"]["says"]


def test_vllm_toml_may_name_the_model(doctor, folder, tmp_path):
    (tmp_path / "vllm.toml").write_text(f'[engine]\nmodel = "{folder}"\n')
    found, code = doctor()
    assert (code, found["engine"]["verdict"]) == (0, "ok")
