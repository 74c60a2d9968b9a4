"""What a user sees who names a file that cannot be served: through the engine, before or while weights are read."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from converting import T
from families import FAMILIES
from gguf_writing import finish, llama_writer

from vllm_core import LLM

FAMILY = FAMILIES["llama"]


def start(path, weights="dequantize"):
    LLM(str(path), dtype="float32", skip_tokenizer_init=True, max_model_len=64, plugin={"gguf": {"weights": weights}})


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "m.gguf"
    FAMILY.write(path, FAMILY.reference(), T.Q8_0)
    return path


@pytest.mark.parametrize("weights", ["dequantize", "keep"])
def test_a_file_that_was_not_downloaded_to_its_end_says_so(good, weights):
    good.write_bytes(good.read_bytes()[:-1000])

    with pytest.raises(ValueError, match=r"m\.gguf is cut off: tensor '.*' ends at byte [\d,]+, the file has [\d,]+"):
        start(good, weights)


def test_an_architecture_that_is_not_read_is_named_with_those_that_are(tmp_path):
    finish(gguf.GGUFWriter(str(tmp_path / "m.gguf"), "mamba"))

    with pytest.raises(ValueError, match=r"architecture 'mamba'; known: llama, qwen2, .*gptneox(.|\n)*safetensors"):
        start(tmp_path / "m.gguf")


def test_a_file_that_is_no_model_is_named(tmp_path):
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    del writer.kv_data[0]["general.architecture"]
    finish(writer)

    with pytest.raises(ValueError, match=r"m\.gguf does not say general\.architecture"):
        start(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("weights", "place"), [("dequantize", r"weight is \[64, 96\]"), ("keep", r"weight_q8_0 is \[64, 3, 34\]")]
)
def test_a_matrix_of_another_shape_is_named_before_weights_are_read(tmp_path, weights, place):
    path, reference = tmp_path / "m.gguf", FAMILY.reference()
    data = np.zeros((64, 96), np.float32)
    path_of = "model.layers.1.mlp.down_proj"
    reference.model.get_submodule(path_of).weight.data = reference.model.lm_head.weight.new_tensor(data)
    FAMILY.write(path, reference, T.Q8_0)

    with pytest.raises(ValueError, match=rf"1 tensors whose shape does not fit:\n +{path_of}\.{place}"):
        start(path, weights)


@pytest.mark.parametrize("weights", ["dequantize", "keep"])
def test_missing_and_unknown_tensors_are_named(tmp_path, weights):
    path, reference = tmp_path / "m.gguf", FAMILY.reference()
    w = gguf.GGUFWriter(str(path), "llama")
    FAMILY.metadata(w, reference.model.config)
    w.add_tensor("token_embd.weight", np.zeros((97, 64), np.float32))
    w.add_tensor("blk.0.attn_sinks.weight", np.zeros(4, np.float32))
    finish(w)

    message = r"(?s)no rule covers:\n +blk\.0\.attn_sinks\.weight.*no tensor fills:.*layers\.0\.self_attn\.q_proj"
    with pytest.raises(ValueError, match=message):
        start(path, weights)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count", [4, 8], r"attention\.head_count differs from layer to layer"),
        ("block_count", "two", r"llama\.block_count is 'two', not a positive number"),
        ("attention.layer_norm_rms_epsilon", "small", r"layer_norm_rms_epsilon is 'small', not a number"),
        ("attention.value_length", 16, "heads of values have another size than those of keys"),
        ("rope.scaling.type", "linear", r"llama\.rope\.scaling\.factor is None, not a positive number"),
        ("rope.scaling.type", "su", r"scales rotary positions by 'su'; known: none, linear, yarn"),
    ],
)
def test_metadata_that_cannot_be_is_named(tmp_path, key, value, message):
    w = llama_writer(tmp_path / "m.gguf")
    w.kv_data[0].pop(f"llama.{key}", None)
    add = {str: w.add_string, int: w.add_uint32, list: w.add_array}[type(value)]
    add(f"llama.{key}", value)
    finish(w)

    with pytest.raises(ValueError, match=message):
        start(tmp_path / "m.gguf")


def test_an_unknown_way_to_hold_weights_is_refused_with_those_known(good):
    with pytest.raises(ValueError, match="weights must be one of 'dequantize', 'keep', not 'packed'"):
        start(good, "packed")


def test_asking_for_the_method_without_a_gguf_file_says_what_to_do(tmp_path):
    FAMILY.reference().save(tmp_path)

    with pytest.raises(
        Exception, match=r"(?s)blocks of a GGUF file, and this checkpoint is none.*weights = .keep."
    ) as e:
        LLM(str(tmp_path), dtype="float32", skip_tokenizer_init=True, max_model_len=64, quantization="gguf")
    assert "vllm-plugin-gguf" in str(e.value)
