"""The architectures that are read, each in a file of its own: ``general.architecture`` -> where its record is."""

from __future__ import annotations

from vllm_core.plugin import load_target
from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.architectures.record import Architecture
from vllm_plugin_gguf.file import GgufFile

_RECORDS = {
    "llama": "llama:LLAMA",
    "qwen2": "qwen2:QWEN2",
    "qwen3": "qwen3:QWEN3",
    "gemma": "gemma:GEMMA",
    "gemma2": "gemma2:GEMMA2",
    "gemma3": "gemma3:GEMMA3",
    "phi2": "phi2:PHI2",
    "phi3": "phi3:PHI3",
    "gpt2": "gpt2:GPT2",
    "gptneox": "gptneox:GPTNEOX",
}


def architecture_of(file: GgufFile) -> tuple[str, Architecture]:
    """The name that the file gives, and its record."""
    name = file.metadata.get("general.architecture")
    if name is None:
        raise CheckpointError(f"{file.path} does not say general.architecture: it holds no model")
    if name not in _RECORDS:
        raise CheckpointError(
            f"{file.path} holds a model of the GGUF architecture {name!r}; known: {', '.join(_RECORDS)}\n"
            "  a checkpoint of the same model in safetensors may be served where this one is not"
        )
    return name, load_target(f"{__name__}.{_RECORDS[name]}")
