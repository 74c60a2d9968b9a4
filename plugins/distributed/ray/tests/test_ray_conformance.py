"""The executor "ray" by the kit that every executor runs."""

from __future__ import annotations

from typing import ClassVar

import pytest

from vllm_core.testing import ExecutorConformance

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One for all tests of this file: its start takes seconds."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


class TestRay(ExecutorConformance):
    executor = "ray"
    architecture = "LlamaForCausalLM"
    config: ClassVar = {
        "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    device = "cpu"
