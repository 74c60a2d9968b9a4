"""GPT-2 and GPT-NeoX for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [
        ModelEntry("GPT2LMHeadModel", "vllm_plugin_gpt.gpt2:GPT2LMHeadModel"),
        ModelEntry("GPTNeoXForCausalLM", "vllm_plugin_gpt.neox:GPTNeoXForCausalLM"),
    ]
