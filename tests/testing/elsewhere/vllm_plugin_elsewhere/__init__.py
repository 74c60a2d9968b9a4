"""A stranger's plugin, for tests of the kit: layers that see everything beside layers with a window."""

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models():
    return [ModelEntry("MinistralForCausalLM", "vllm_plugin_elsewhere.model:Ministral")]
