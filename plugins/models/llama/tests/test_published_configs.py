"""Published config.json files, as they are written, give models of the published sizes."""

from __future__ import annotations

import pytest
import torch
import vllm_plugin_llama
from vllm_plugin_llama.mistral import MistralForCausalLM
from vllm_plugin_llama.model import LlamaForCausalLM

from vllm_core.interfaces.device import Device
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
          "rope_type": "llama3"}  # fmt: skip
NAMES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads")  # fmt: skip


def config(*sizes, **fields):
    given = dict(zip(NAMES, sizes, strict=True))
    return {"hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, **given, **fields}


LLAMAS = {
    "Llama-2-7b": (6_738_415_616, config(32000, 4096, 11008, 32, 32, 32, rope_scaling=None)),
    "Llama-3-8B": (8_030_261_248, config(128256, 4096, 14336, 32, 32, 8, rope_theta=500000.0, rope_scaling=None)),
    "Llama-3.1-8B": (
        8_030_261_248,
        config(128256, 4096, 14336, 32, 32, 8, rope_theta=500000.0, rope_scaling={"factor": 8.0, **LLAMA3},
               attention_bias=False, mlp_bias=False, tie_word_embeddings=False),
    ),
    "Llama-3.2-1B": (
        1_235_814_400,
        config(128256, 2048, 8192, 16, 32, 8, rope_theta=500000.0, rope_scaling={"factor": 32.0, **LLAMA3},
               head_dim=64, tie_word_embeddings=True),
    ),
    "TinyLlama-1.1B": (1_100_048_384, config(32000, 2048, 5632, 22, 32, 4, rope_scaling=None)),
    "SmolLM2-135M": (134_515_008, config(49152, 576, 1536, 30, 9, 3, rope_theta=100000, tie_word_embeddings=True)),
}  # fmt: skip
MISTRALS = {
    "Mistral-7B-v0.1": (7_241_732_096, config(32000, 4096, 14336, 32, 32, 8, sliding_window=4096), 4096),
    "Mistral-7B-v0.3": (
        7_248_023_552,
        config(32768, 4096, 14336, 32, 32, 8, rope_theta=1e6, sliding_window=None),
        None,
    ),
    "Mistral-Nemo": (
        12_247_782_400,
        config(131072, 5120, 14336, 40, 32, 8, head_dim=128, rope_theta=1e6, sliding_window=None),
        None,
    ),
}


def bound(model):
    """On the meta device: shapes without memory."""
    meta = torch.device("meta")
    model.bind(EnginePlan(HandChooser(vllm_plugin_llama), torch.bfloat16, meta, Device("cpu"), {}, 4096, 4096))
    return model


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", LLAMAS)
def test_a_llama_has_as_many_parameters_as_published(name):
    published, fields = LLAMAS[name]
    assert size(bound(LlamaForCausalLM.from_config(fields))) == published


@pytest.mark.parametrize("name", MISTRALS)
def test_a_mistral_has_as_many_parameters_as_published_and_its_window(name):
    published, fields, window = MISTRALS[name]
    model = MistralForCausalLM.from_config(fields)
    assert {layer.attention.attend.window for layer in model.layers.children()} == {window}
    assert size(bound(model)) == published
