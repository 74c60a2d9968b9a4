"""Whole halves of layers whose matrices are int8, in a real engine, against the same composed of single operations."""

from __future__ import annotations

import pytest
import torch
import transformers
from vllm_plugin_cpu_native.limits import machine_limits

from vllm_core import LLM, SamplingParams

METHOD = "int8_per_channel_weight_only"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        attention_bias=True,
    )
    path = tmp_path_factory.mktemp("tiny")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32"))
@pytest.mark.parametrize("quantization", [METHOD, "int8", None])
def test_the_engine_finds_the_same_probabilities_with_and_without_native_kernels(folder, quantization):
    prompts = [{"prompt_token_ids": [3 + i, 5, 7 * i % 97, 11]} for i in range(6)]
    params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True, logprobs=5)
    found, halves = [], []
    for block in ([], ["cpu-native"]):
        settings = {"quantization": quantization, "plugins": {"block": block}, "dtype": "float32", "max_model_len": 64}
        with LLM(folder, skip_tokenizer_init=True, **settings) as llm:
            found.append([o.outputs[0] for o in llm.generate(prompts, params, use_tqdm=False)])
            layer = llm.built.executor._runner.model.get_submodule("layers.0")
            halves.append([type(half.run).__name__ for half in (layer.attention, layer.mlp)])
    fused = quantization != "int8"  # rounded inputs are a method of their own
    assert halves[0] == (["NativeDecoderAttention", "NativeGatedMLP"] if fused else ["method", "method"])
    assert halves[1] == ["method", "method"]
    for native, plain in zip(*found, strict=True):
        assert native.token_ids == plain.token_ids
        for a, b in zip(native.logprobs, plain.logprobs, strict=True):
            # A rounding of inputs may fall to the other side.
            assert max(abs(a[i].logprob - b[i].logprob) for i in a.keys() & b.keys()) < (1e-4 if fused else 0.02)
