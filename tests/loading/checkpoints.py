"""Tiny real checkpoints: random Llama models and a trained tokenizer, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.engine.tokenizers_for_tests import byte_level

LENGTH = 256  # tokens the models are made for


def tiny_config(**changes: Any) -> LlamaConfig:
    fields = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "initializer_range": 0.3,  # so that logits spread and a wrong weight changes the text
    }
    return LlamaConfig(**{**fields, **changes})


def tiny_model(*, dtype: str = "float32", seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(tiny_config(**changes)).to(getattr(torch, dtype)).eval()


def write(folder: Path, model: LlamaForCausalLM, *, tokenizer: bool = True, **save: Any) -> Path:
    """As ``save_pretrained`` does; ``save`` are its arguments."""
    model.save_pretrained(folder, **save)
    if tokenizer:
        byte_level().hf.save_pretrained(folder)
    return folder


def greedy(model: LlamaForCausalLM, ids: list[int], tokens: int) -> list[int]:
    """The oracle: the likeliest token each time, the whole sequence computed anew, in float32, eos ignored."""
    model, known = model.float(), list(ids)
    with torch.inference_mode():
        for _ in range(tokens):
            known.append(int(model(torch.tensor([known])).logits[0, -1].argmax()))
    return known[len(ids) :]
