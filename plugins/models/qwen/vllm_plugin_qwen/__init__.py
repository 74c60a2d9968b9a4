"""Qwen2 and Qwen3 for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [
        ModelEntry("Qwen2ForCausalLM", "vllm_plugin_qwen.model:Qwen2ForCausalLM"),
        ModelEntry("Qwen3ForCausalLM", "vllm_plugin_qwen.model:Qwen3ForCausalLM"),
    ]
