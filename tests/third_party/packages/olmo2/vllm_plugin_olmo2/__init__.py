"""OLMo 2 for vllm-core. Importing this module must not import torch."""

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [ModelEntry("Olmo2ForCausalLM", "vllm_plugin_olmo2.model:Olmo2ForCausalLM")]
