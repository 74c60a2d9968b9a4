"""What config.json alone tells: the class of transformers that it names, and whether we can run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_plugin_transformers.errors import CannotServe

BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""transformers computes these for the longest sequence of a batch, so one request would change another's numbers."""


def reason_against(config: Mapping[str, Any]) -> str:
    """Why the fallback does not serve it; "" if nothing in the config speaks against it."""
    try:
        find_class(config)
    except CannotServe as error:
        return str(error)
    return ""


def find_class(config: Mapping[str, Any]) -> Any:
    """transformers' class for ``config["architectures"]``. ``CannotServe`` says why there is none that we can run."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    version = f"transformers {transformers.__version__}"
    named = config["architectures"]
    causal = {name for names in CAUSAL.values() for name in ([names] if isinstance(names, str) else names)}
    architecture = next((name for name in named if name in causal), "")
    if not architecture:
        raise CannotServe(_unknown(str(named[0]), config, version))
    found = getattr(transformers, architecture)
    # Text-only classes of such families inherit the modalities; their configs have no parts.
    media = found.input_modalities not in ("text", ("text",), ["text"]) and bool(found.config_class.sub_configs)
    if config.get("is_encoder_decoder") or media:
        raise CannotServe(f"{architecture} is more than a decoder of text; the fallback runs nothing else")
    if found._is_stateful:
        raise CannotServe(f"{architecture} keeps a recurrent state (state space or linear layers), not keys and values")
    if not found._supports_attention_backend:
        raise CannotServe(
            f"{architecture} does not go through the attention interface of {version}"
            " (_supports_attention_backend is false), so its cache cannot be replaced"
        )
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") or "a method without a name"
        raise CannotServe(f"its weights are quantized ({method}); the fallback reads plain weights only")
    if rope := sorted({kind for kind in _rope_types(config) if kind in BATCH_DEPENDENT_ROPE}):
        raise CannotServe(f"its rope_type {rope[0]} depends, in transformers, on the longest sequence of a batch")
    return found


def _unknown(name: str, config: Mapping[str, Any], version: str) -> str:
    import transformers

    if hasattr(transformers, name):
        return f"{name} is no decoder-only language model to {version} (AutoModelForCausalLM does not list it)"
    if config.get("auto_map"):
        return f"{version} has no {name}, and Python files that come with a checkpoint (auto_map) are never run"
    return f"{version} has no {name}"


def _rope_types(config: Mapping[str, Any]) -> list[str]:
    """Of both ways of writing them, and of parameters by layer type."""
    found = []
    for key in ("rope_parameters", "rope_scaling"):
        table = config.get(key)
        tables = [table, *table.values()] if isinstance(table, Mapping) else []
        found += [t.get("rope_type") or t.get("type") or "" for t in tables if isinstance(t, Mapping)]
    return found
