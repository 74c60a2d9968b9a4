"""Llama 3's rope type under the conformance kit."""

from __future__ import annotations

from vllm_core.testing import RopeConformance


class TestLlama3(RopeConformance):
    rope_type = "llama3"
    params = {
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    head_dim = 32
    variants = {
        "half a head": {"partial_rotary_factor": 0.5},
        "a steep ramp": {"low_freq_factor": 1.9, "high_freq_factor": 2.0},
    }
    changes = {
        "rope_theta": 510.0,
        "partial_rotary_factor": 0.5,
        "factor": 8.1,
        "low_freq_factor": 1.1,
        "high_freq_factor": 4.1,
        "original_max_position_embeddings": 70,
    }
    refuses = [
        ({"factor": None}, "lack factor"),
        ({"high_freq_factor": None}, "lack high_freq_factor"),
    ]
