"""What a new model's conformance test is told: a tiny configuration, variants, and a change for each field."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vllm_core.cli.template.model_fields import python

__all__ = ["TINY", "test_data"]

TINY: dict[str, Any] = {
    "vocab_size": 103, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
    "rms_norm_eps": 1e-3, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
}  # fmt: skip
OTHER_ACT = {"gelu_pytorch_tanh": "silu"}


def test_data(
    fields: Sequence[str], flags: Collection[str], tiny: Mapping[str, Any], matter: Collection[str]
) -> dict[str, Any]:
    """Lines of the dictionaries in the test file. ``fields`` are those of the model's Config."""
    told = {*fields, "max_position_embeddings", "pad_token_id", *matter}
    config = {name: value for name, value in tiny.items() if name in told}
    config |= {flag: False for flag in flags if flag not in config}
    variants: dict[str, dict[str, Any]] = {flag.replace("_", " "): {flag: not config[flag]} for flag in flags}
    if config.get("num_key_value_heads", 1) > 1:
        variants["one kv head"] = {"num_key_value_heads": 1}
    if "tie_word_embeddings" in fields:
        variants["other head"] = {"tie_word_embeddings": not config.get("tie_word_embeddings", False)}
    changes = [f"{python(name)}: {python(_other(name, config.get(name)))}," for name in fields]
    if "head_dim" in config and config.get("num_key_value_heads", 1) % 2 == 0:
        heads, kv_heads = config["num_attention_heads"] // 2, config["num_key_value_heads"] // 2
        cut = (heads, kv_heads, 2 * config["head_dim"])
        changes += [
            "# The same shapes, cut into other heads.",
            f"{python(('num_attention_heads', 'num_key_value_heads', 'head_dim'))}: {python(cut)},",
        ]
    return {
        "test_config": [f"{python(name)}: {python(value)}," for name, value in config.items()],
        "test_variants": [f"{python(name)}: {python(value)}," for name, value in variants.items()],
        "test_changes": changes,
    }


def _other(name: str, value: Any) -> Any:
    """Another value for a field; a list holds several."""
    sizes: dict[str, Any] = {"vocab_size": 104, "hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": [2, 4]}
    if name in sizes:
        return sizes[name]
    if isinstance(value, bool):
        return not value
    match name:
        case "num_attention_heads":
            return 8
        case "num_key_value_heads":
            return 1 if value != 1 else 2
        case "head_dim":
            return 8
        case "sliding_window":
            return [value - 1, value + 1] if value else 10
        case "layer_types":
            kinds = list(dict.fromkeys(["full_attention", "sliding_attention", *value]))
            return [[kinds[1 - kinds.index(value[0])], *value[1:]]]
        case "rope_parameters":
            return {**value, "rope_theta": 510.0}
    if name.endswith(("_eps", "_epsilon")):
        return 1e-2
    return OTHER_ACT.get(value, "gelu_pytorch_tanh")
