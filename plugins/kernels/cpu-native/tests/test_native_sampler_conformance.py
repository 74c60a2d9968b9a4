"""The sampler under the core's kit."""

from __future__ import annotations

import pytest
from vllm_plugin_cpu_native.limits import machine_limits

from vllm_core.testing import SamplerConformance

pytestmark = pytest.mark.skipif(bool(machine_limits("float32")), reason=machine_limits("float32"))


class TestNativeSampler(SamplerConformance):
    sampler = "native"
    device = "cpu"
    architecture = "LlamaForCausalLM"
    config = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
