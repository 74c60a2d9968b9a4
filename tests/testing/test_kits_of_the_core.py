"""The core's own policies, executors, platform, tokenizer and chat renderer pass the kits that plugins use."""

from __future__ import annotations

from typing import ClassVar

import pytest

from vllm_core.interfaces.weights import TokenizerFiles
from vllm_core.testing import (
    ChatRendererConformance,
    ExecutorConformance,
    PlatformConformance,
    SchedulerPolicyConformance,
    TokenizerConformance,
)
from vllm_core.testing.cuts import TinyTokenizer

LLAMA = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


class TestFirstComeFirstServed(SchedulerPolicyConformance):
    policy = "fcfs"
    patience = 0.001


class TestMostUrgentFirst(SchedulerPolicyConformance):
    policy = "priority"
    cannot: ClassVar = {"patience": "whoever gives priorities wants less urgent requests to wait, however long"}


class TestInProcess(ExecutorConformance):
    executor = "in-process"
    architecture = "LlamaForCausalLM"
    config = LLAMA
    device = "cpu"


@pytest.mark.slow
class TestProcesses(ExecutorConformance):
    executor = "mp"
    architecture = "LlamaForCausalLM"
    config = LLAMA
    device = "cpu"


class TestCpu(PlatformConformance):
    platform = "cpu"
    architecture = "LlamaForCausalLM"
    config = LLAMA


class TestTokenizersOfTransformers(TokenizerConformance):
    mode = "hf"
    special = ("<|turn|>",)
    vocab_size = 284
    refused: ClassVar = {"no file": ({}, "cannot be read"), "no JSON": ({"tokenizer.json": "owl"}, "cannot be read")}

    @classmethod
    def files(cls, folder):
        tiny = TinyTokenizer(["the quick brown fox", "the lazy dog jumps"])
        return TokenizerFiles(tokenizer_json=tiny._rust.to_str(), settings={"eos_token": "<|turn|>"})


TEMPLATE = (
    "{%- if tools %}<tools>{{ tools | tojson }}\n{% endif %}"
    "{%- for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{%- for call in m.tool_calls %}{{ call.function | tojson }}{% endfor %}</>\n{% endfor %}"
    "{%- if add_generation_prompt %}<assistant>{% endif %}"
)


class TestTemplates(ChatRendererConformance):
    renderer = "auto"
    template = TEMPLATE
    cannot: ClassVar = {
        "unknown options": "a template may read any name, and only a slip in one of the core's own is told",
        "unknown roles": "which roles there are, the template says",
    }

    @classmethod
    def tokenizer(cls):
        from transformers import PreTrainedTokenizerFast

        from vllm_core.engine.tokenizer import HFTokenizer

        hf = PreTrainedTokenizerFast(tokenizer_object=TinyTokenizer(["a text"])._rust)
        hf.chat_template = TEMPLATE
        return HFTokenizer(hf)
