"""Tensors: bit for bit what the gguf package dequantizes, under the names and in the order that Llama has them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf_writing import add_tensors, finish, gguf_name, llama_writer, permuted
from vllm_plugin_gguf import dequantize
from vllm_plugin_gguf.checkpoint import GgufCheckpoint, KeptGgufCheckpoint

from vllm_core.weights import CheckpointError
from vllm_core.weights.transforms import RotaryPairs

T = gguf.GGMLQuantizationType
FAST = [T.Q4_0, T.Q4_1, T.Q8_0]
OWN = sorted(dequantize.OWN)
LIBRARY = [T.IQ4_NL, T.TQ2_0, T.MXFP4]


def random_blocks(kind, count):
    """Blocks of any bytes: scales may be infinite or no numbers at all, as in a damaged file."""
    return np.random.default_rng(kind).integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)


def bits(t):
    """For comparisons that tell -0.0 from 0.0; one bit pattern for all that is no number."""
    return torch.where(t.isnan(), torch.nan, t).view(torch.int32)


@pytest.mark.parametrize("kind", [*OWN, *LIBRARY], ids=lambda k: k.name)
def test_blocks_are_dequantized_bit_for_bit_as_by_the_gguf_package(kind):
    data = random_blocks(kind, 500)
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(gguf.quants.dequantize(data, kind))

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = torch.full(expected.shape, torch.nan, dtype=dtype)
        dequantize.dequantize_into(torch.from_numpy(data), kind, out)
        assert torch.equal(bits(out.float()), bits(expected.to(dtype).float()))
    assert expected.isfinite().float().mean() > 0.8


@pytest.mark.parametrize("kind", [T.Q4_1, T.Q6_K], ids=lambda k: k.name)
def test_more_blocks_than_fit_the_cache_are_dequantized_in_steps(kind, monkeypatch):
    data = torch.from_numpy(random_blocks(kind, 50))
    whole, steps = torch.empty(2, 50, gguf.GGML_QUANT_SIZES[kind][0])
    dequantize.dequantize_into(data, kind, whole)

    monkeypatch.setattr(dequantize, "_STEP", 7 * whole.shape[1])
    dequantize.dequantize_into(data, kind, steps)

    assert torch.equal(bits(steps), bits(whole))


@pytest.mark.parametrize("kind", [T.F32, T.F16, T.BF16, *FAST], ids=lambda k: k.name)
def test_a_llama_comes_back_under_its_names_and_in_its_order(tmp_path, tiny_llama, kind):
    path, state = tmp_path / "m.gguf", tiny_llama.state_dict()
    writer = llama_writer(path)
    add_tensors(writer, state, 4, 2, kind)
    finish(writer)

    source = GgufCheckpoint(str(path)).source

    assert set(source.tensors()) == set(state)
    for name, t in state.items():
        expected = t.float()
        if t.ndim == 2 and kind != T.F32:
            # Rows are packed one by one, so packing them in another order changes nothing else.
            expected = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(t.numpy(), kind), kind))
        found = source.read(name)
        assert str(found.dtype).removeprefix("torch.") == source.tensors()[name].dtype
        assert source.tensors()[name].shape == tuple(t.shape)
        assert torch.equal(found.float(), expected), name


@pytest.mark.parametrize("kind", [T.F16, T.Q4_1], ids=lambda k: k.name)
def test_a_slice_equals_the_slice_of_the_whole(tmp_path, tiny_llama, kind):
    path, state = tmp_path / "m.gguf", tiny_llama.state_dict()
    writer = llama_writer(path)
    add_tensors(writer, state, 4, 2, kind)
    finish(writer)
    source = GgufCheckpoint(str(path)).source

    for name in ("model.layers.1.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"):
        whole = source.read(name)
        for rows, columns in [((32, 64), (0, 128)), ((0, 96), (32, 96)), ((3, 77), (5, 121)), ((95, 96), (0, 1))]:
            part = source.read(name, (rows, columns))
            assert torch.equal(part, whole[slice(*rows), slice(*columns)])
    norm = source.read("model.norm.weight")
    assert torch.equal(source.read("model.norm.weight", ((5, 70),)), norm[5:70])


def test_biases_of_queries_and_keys_are_put_in_order_too(tmp_path):
    path = tmp_path / "m.gguf"
    bias = np.arange(128, dtype=np.float32)
    writer = llama_writer(path)
    writer.add_tensor("blk.0.attn_q.bias", permuted(bias, 4))
    writer.add_tensor("blk.0.attn_v.bias", bias)
    finish(writer)
    checkpoint = GgufCheckpoint(str(path))

    assert checkpoint.config["attention_bias"] is True
    assert checkpoint.source.read("model.layers.0.self_attn.q_proj.bias").tolist() == bias.tolist()
    assert checkpoint.source.read("model.layers.0.self_attn.q_proj.bias", ((32, 64),)).tolist() == bias[32:64].tolist()
    assert checkpoint.source.read("model.layers.0.self_attn.v_proj.bias").tolist() == bias.tolist()


@pytest.mark.parametrize("open_as", [GgufCheckpoint, KeptGgufCheckpoint])
def test_the_fused_matrix_of_the_first_phi2_files_is_cut_in_three(tmp_path, open_as):
    w = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "phi2")
    for key in ("embedding_length", "feed_forward_length", "context_length", "rope.dimension_count"):
        w.add_uint32(f"phi2.{key}", 64)
    w.add_block_count(1)
    w.add_head_count(1)
    w.add_layer_norm_eps(1e-5)
    matrix, bias = np.random.default_rng(0).random((192, 64), np.float32), np.arange(192, dtype=np.float32)
    blocks = gguf.quants.quantize(matrix, T.Q8_0)
    w.add_tensor("blk.0.attn_qkv.weight", blocks, raw_dtype=T.Q8_0)
    w.add_tensor("blk.0.attn_qkv.bias", bias)
    finish(w)

    source = open_as(str(tmp_path / "m.gguf")).source
    kept = open_as is KeptGgufCheckpoint
    wanted = torch.from_numpy(blocks).view(192, 2, 34) if kept else gguf.quants.dequantize(blocks, T.Q8_0)
    for n, part in enumerate("qkv"):
        rows, module = slice(64 * n, 64 * n + 64), f"model.layers.0.self_attn.{part}_proj"
        assert source.read(f"{module}.bias").tolist() == bias[rows].tolist()
        name = f"{module}.weight_q8_0" if kept else f"{module}.weight"
        assert source.tensors()[name].nbytes == len(blocks.tobytes()) // 3
        assert torch.equal(source.read(name), torch.as_tensor(wanted[rows]))
        assert torch.equal(source.read(name, ((7, 9), *((0, n) for n in wanted.shape[1:])))[0], source.read(name)[7])


def test_the_order_of_rows_is_the_one_that_the_core_knows():
    w = torch.randn(24, 5)
    (part,) = RotaryPairs(6).parts((24, 5), "", {})

    assert torch.equal(part.arrange(torch.from_numpy(permuted(w.numpy(), 4))), w)


@pytest.mark.parametrize("kind", [T.Q4_1, T.Q8_0], ids=lambda k: k.name)
def test_kept_blocks_are_the_files_own_bytes_in_the_order_of_the_checkpoint(tmp_path, tiny_llama, kind):
    path, state = tmp_path / "m.gguf", tiny_llama.state_dict()
    writer = llama_writer(path)
    add_tensors(writer, state, 4, 2, kind)
    finish(writer)

    checkpoint = KeptGgufCheckpoint(str(path))
    source, size = checkpoint.source, gguf.GGML_QUANT_SIZES[kind][1]

    for name, t in state.items():
        if t.ndim == 1:
            assert torch.equal(source.read(name), t)
            continue
        module = name.removesuffix(".weight")
        assert checkpoint.config["quantization_config"]["types"][module] == kind.name
        name = f"{module}.weight_{kind.name.lower()}"
        want = torch.from_numpy(gguf.quants.quantize(t.numpy(), kind)).view(len(t), -1, size)
        assert (source.tensors()[name].shape, source.tensors()[name].dtype) == (want.shape, "uint8")
        assert torch.equal(source.read(name), want)
        part = source.read(name, ((5, 41), (1, 3), (0, size)))
        assert torch.equal(part, want[5:41, 1:3])


def test_a_type_that_cannot_be_kept_is_refused_with_the_setting_that_reads_it(tmp_path):
    writer = llama_writer(tmp_path / "m.gguf")
    writer.add_tensor("token_embd.weight", np.zeros((64, 72), np.uint8), raw_dtype=T.IQ4_NL)
    writer.add_tensor("output_norm.weight", np.ones(128, np.float32))
    finish(writer)

    message = r'(?s)model.embed_tokens is of GGUF type IQ4_NL, which cannot be kept.*weights = "dequantize"'
    with pytest.raises(CheckpointError, match=message):
        KeptGgufCheckpoint(str(tmp_path / "m.gguf"))
    assert not GgufCheckpoint(str(tmp_path / "m.gguf")).source.read("model.embed_tokens.weight").any()


def test_a_type_that_nobody_can_unpack_is_named(monkeypatch):
    def unable(data, kind):
        raise NotImplementedError

    monkeypatch.setattr(gguf.quants, "dequantize", unable)

    dequantize.readable.cache_clear()
    with pytest.raises(CheckpointError, match=r"(?s)x.gguf: tensor 'a' is of GGUF type IQ1_S.*known +F32, F16, BF16"):
        dequantize.refuse_unreadable("a", T.IQ1_S, "x.gguf")
    dequantize.readable.cache_clear()


@pytest.mark.slow
def test_every_tensor_of_smollm2_equals_the_one_that_transformers_loads(smollm2):
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    checkpoint = GgufCheckpoint(smollm2)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**checkpoint.config))
    state = load_gguf_checkpoint(smollm2, return_tensors=True, model_to_load=model)["tensors"]

    assert set(checkpoint.source.tensors()) == set(state)
    assert all(torch.equal(checkpoint.source.read(k), t) for k, t in state.items())
    assert all(gguf_name(k) for k in state)
