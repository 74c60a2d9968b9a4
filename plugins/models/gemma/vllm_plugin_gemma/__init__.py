"""Gemma for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [
        ModelEntry("GemmaForCausalLM", "vllm_plugin_gemma.gemma:GemmaForCausalLM"),
        ModelEntry("Gemma2ForCausalLM", "vllm_plugin_gemma.gemma2:Gemma2ForCausalLM"),
        ModelEntry("Gemma3ForCausalLM", "vllm_plugin_gemma.gemma3:Gemma3ForCausalLM"),
    ]
