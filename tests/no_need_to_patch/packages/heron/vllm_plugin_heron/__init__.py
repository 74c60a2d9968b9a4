"""Heron for vllm-core. Importing this module must not import torch."""

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [ModelEntry("HeronForCausalLM", "vllm_plugin_heron.model:HeronForCausalLM")]
