"""Models split over several files."""

from __future__ import annotations

import shutil

import gguf
import numpy as np
import pytest
import vllm_plugin_gguf as plugin
from gguf_writing import finish, llama_writer
from vllm_plugin_gguf.checkpoint import GgufCheckpoint
from vllm_plugin_gguf.settings import GgufSettings

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import Offer, Refusal
from vllm_core.weights import CheckpointError

NAMES = [f"m-{n:05}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.fixture
def parts(tmp_path):
    """As llama-gguf-split writes them: metadata in the first, a third of the tensors in each."""
    for number, name in enumerate(NAMES):
        w = llama_writer(tmp_path / name) if number == 0 else gguf.GGUFWriter(str(tmp_path / name), "llama")
        w.add_uint16("split.no", number)
        w.add_uint16("split.count", 3)
        w.add_int32("split.tensors.count", 3)
        w.add_tensor(f"blk.{number}.attn_norm.weight", np.full(128, number + 1, np.float32))
        finish(w)
    return tmp_path


def norms(checkpoint):
    names = [f"model.layers.{i}.input_layernorm.weight" for i in range(3)]
    assert set(names) == set(checkpoint.source.tensors())
    return [checkpoint.source.read(name).unique().tolist() for name in names]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_model_opens_by_its_folder_and_by_each_of_its_parts(parts, name):
    checkpoint = GgufCheckpoint(str(parts / name))

    assert checkpoint.config["hidden_size"] == 128
    assert norms(checkpoint) == [[1], [2], [3]]


def ask(*files):
    return plugin.weight_format(WeightFormatQuery(path="/models/x", files=files), GgufSettings())


def test_parts_of_one_model_are_offered_and_parts_of_two_are_not():
    assert isinstance(ask(*NAMES), Offer)
    assert isinstance(ask(NAMES[1]), Offer)
    assert isinstance(ask(*NAMES, "other-00001-of-00002.gguf"), Refusal)
    assert isinstance(ask(*NAMES, "m.gguf"), Refusal)


def test_a_missing_part_is_named(parts):
    (parts / NAMES[1]).unlink()

    with pytest.raises(CheckpointError, match=rf"one of 3 parts.*lacks {NAMES[1]}(.|\n)*all parts into one folder"):
        GgufCheckpoint(str(parts))


def test_a_renamed_part_is_refused_with_the_names_that_work(parts):
    (parts / NAMES[0]).rename(parts / "model.gguf")

    with pytest.raises(CheckpointError, match=r"one of 3 parts.*called NAME-00001-of-00003\.gguf"):
        GgufCheckpoint(str(parts / "model.gguf"))


def test_a_part_of_another_model_under_the_same_name_is_noticed(parts):
    shutil.copy(parts / NAMES[1], parts / NAMES[2])

    with pytest.raises(CheckpointError, match=rf"{NAMES[2]} says that it is part 1 .* of 3, and is named as part 2"):
        GgufCheckpoint(str(parts))


def test_parts_that_lack_tensors_are_noticed(parts):
    w = gguf.GGUFWriter(str(parts / NAMES[2]), "llama")
    w.add_uint16("split.no", 2)
    w.add_uint16("split.count", 3)
    finish(w)

    with pytest.raises(CheckpointError, match="have 2 tensors, not 3"):
        GgufCheckpoint(str(parts))
