"""The core's own rope type under the conformance kit."""

from __future__ import annotations

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from vllm_core.testing import RopeConformance


class TestDefault(RopeConformance):
    rope_type = "default"
    params = {"rope_theta": 500.0}
    lengths = (16, 2048)
    head_dim = 24
    variants = {
        "a third of a head": {"partial_rotary_factor": 1 / 3},
        "interleaved": {"interleaved": True},
        "a quarter, interleaved": {"partial_rotary_factor": 0.25, "interleaved": True},
        "a large base": {"rope_theta": 1e6},
    }
    changes = {
        "rope_theta": 501.0,
        "partial_rotary_factor": 0.5,
        "interleaved": True,
        "interleaved.rope_theta": 501.0,
    }

    @classmethod
    def reference(cls, params, head_dim, longest):
        size = int(head_dim * params.get("partial_rotary_factor", 1.0))
        return params["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size), 1.0

    def test_the_reference_is_what_transformers_computes(self):
        config = LlamaConfig(head_dim=24, rope_parameters={"rope_type": "default", **self.params})
        theirs = LlamaRotaryEmbedding(config)
        frequencies, scaling = self.reference(self.params, 24, 16)
        torch.testing.assert_close(theirs.inv_freq.double(), frequencies, rtol=1e-6, atol=0)
        assert theirs.attention_scaling == scaling
