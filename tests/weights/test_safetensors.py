"""Safetensors: single, sharded, a folder of files; and every way in which they are broken."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vllm_core.weights.errors import CheckpointError
from vllm_core.weights.safetensors import SafetensorsSource


def sharded(folder, tensors, index="model.safetensors.index.json", shards=2):
    names, weight_map = list(tensors), {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {k: tensors[k] for k in names[n::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def holds(source, tensors):
    assert set(source.tensors()) == set(tensors)
    for name, t in tensors.items():
        info = source.tensors()[name]
        assert (info.shape, info.dtype, info.nbytes) == (tuple(t.shape), str(t.dtype).removeprefix("torch."), t.nbytes)
        assert torch.equal(source.read(name), t)


@pytest.fixture
def some():
    torch.manual_seed(0)
    return {
        "a": torch.randn(6, 4),
        "b": torch.randn(3).bfloat16(),
        "c": torch.randn(2, 3, 5).half(),
        "d": torch.randint(0, 255, (4, 4), dtype=torch.uint8),
        "e": torch.randn(8, 8).to(torch.float8_e4m3fn),
    }


def test_a_single_file_a_sharded_folder_and_a_folder_without_index_hold_the_same(tmp_path, some):
    for name in ("one", "many", "loose"):
        (tmp_path / name).mkdir()
    save_file(some, tmp_path / "one" / "model.safetensors")
    sharded(tmp_path / "many", some)
    sharded(tmp_path / "loose", some)
    (tmp_path / "loose" / "model.safetensors.index.json").unlink()

    for path in ("one", "one/model.safetensors", "many", "loose"):
        source = SafetensorsSource(tmp_path / path)
        names = [n for n in some if n != "e"]
        for name in names:
            assert torch.equal(source.read(name), some[name])
        assert torch.equal(source.read("e").float(), some["e"].float())
        assert {k: i.nbytes for k, i in source.tensors().items()} == {k: t.nbytes for k, t in some.items()}
        assert {k: i.shape for k, i in source.tensors().items()} == {k: tuple(t.shape) for k, t in some.items()}
        assert all(getattr(torch, i.dtype) == some[k].dtype for k, i in source.tensors().items())


def test_a_slice_equals_the_slice_of_the_whole(tmp_path, some):
    save_file(some, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path)

    assert torch.equal(source.read("a", ((2, 5), (1, 3))), some["a"][2:5, 1:3])
    assert torch.equal(source.read("c", ((1, 2), (0, 3), (2, 4))), some["c"][1:2, :, 2:4])
    assert torch.equal(source.read("b", ((1, 3),)), some["b"][1:3])


def test_an_index_under_another_name_is_found(tmp_path, some):
    del some["e"]
    holds(SafetensorsSource(sharded(tmp_path, some, index="other.safetensors.index.json")), some)


def test_model_safetensors_stands_alone_beside_other_files(tmp_path, some):
    del some["e"]
    save_file(some, tmp_path / "model.safetensors")
    save_file(some, tmp_path / "consolidated.safetensors")

    holds(SafetensorsSource(tmp_path), some)


def test_the_same_tensor_in_two_loose_files_is_an_error(tmp_path, some):
    save_file(some, tmp_path / "x.safetensors")
    save_file(some, tmp_path / "y.safetensors")

    with pytest.raises(CheckpointError, match=r"a is in two files(.|\n)*x\.safetensors\n.*y\.safetensors"):
        SafetensorsSource(tmp_path)


def test_a_missing_shard_is_named(tmp_path, some):
    sharded(tmp_path, some)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"missing in .*\n    model-00002-of-00002\.safetensors"):
        SafetensorsSource(tmp_path)


def test_a_tensor_that_only_the_index_knows_is_named(tmp_path, some):
    sharded(tmp_path, some)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match=r"not in their files:\n    ghost in model-00001-of-00002\.safetensors"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("where", ["../outside.safetensors", 3])
def test_an_index_that_leads_out_of_its_folder_is_refused(tmp_path, where):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": where}}))

    with pytest.raises(CheckpointError, match="should map tensors to file names of its folder"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-10], r"cut off: its tensors need [\d,]+ bytes, the file has [\d,]+"),
        (lambda data: data[:5], "not a complete safetensors file"),
        (lambda data: data[:100], "not a complete safetensors file"),
        (lambda data: b"", "not a complete safetensors file"),
        (lambda data: b"\xff" * 8 + data[8:], "not a complete safetensors file"),
        (lambda data: data[:8] + b"!" + data[9:], "bad header"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "bad header"),
        (lambda data: data.replace(b'"F32"', b'"X32"'), "bad header"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, some, damage, message):
    file = tmp_path / "model.safetensors"
    save_file(some, file)
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(CheckpointError, match=message) as e:
        SafetensorsSource(tmp_path)
    assert str(file) in str(e.value)


def test_a_folder_without_weights_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no \*\.safetensors files"):
        SafetensorsSource(tmp_path)
