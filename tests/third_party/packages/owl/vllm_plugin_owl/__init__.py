"""Owl for vllm-core. Importing this module must not import torch."""

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [ModelEntry("OwlForCausalLM", "vllm_plugin_owl.model:OwlForCausalLM")]
