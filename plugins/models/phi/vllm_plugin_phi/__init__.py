"""Microsoft's Phi models for vllm-core. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import ModelEntry, hookimpl

HOOK_API = 1


@hookimpl
def models() -> list[ModelEntry]:
    return [
        ModelEntry("PhiForCausalLM", "vllm_plugin_phi.phi:PhiForCausalLM"),
        ModelEntry("Phi3ForCausalLM", "vllm_plugin_phi.phi3:Phi3ForCausalLM"),
    ]
