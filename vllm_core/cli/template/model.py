"""What the template of a model is filled with: a decoder's parts, from a checkpoint or a plain one of its own."""

from __future__ import annotations

from typing import Any

from vllm_core.cli.template.hints import hint
from vllm_core.cli.template.model_fields import ROPE, Fields, python
from vllm_core.cli.template.model_parts import Parts
from vllm_core.cli.template.model_tests import TINY, test_data
from vllm_core.cli.template.reference import GAINS, GENERAL, Reference
from vllm_core.cli.template.source import Source
from vllm_core.cli.template.tensors import read_structure

__all__ = ["model_data"]

PLAIN_TENSORS = (
    "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight", "model.layers.0.post_attention_layernorm.weight",
    "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight",
    "model.norm.weight", "lm_head.weight",
)  # fmt: skip
"""Of the model that is made where no checkpoint is given: RMSNorm, grouped queries, rotary positions, gated MLP."""

PLAIN_CONFIG: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
PLAIN_FLAGS = {
    "attention_bias": frozenset({"attention.qkv", "attention.out"}),
    "mlp_bias": frozenset({"mlp"}),
}


def model_data(class_name: str, source: Source | None, reference: Reference | None) -> dict[str, Any]:
    """Variables of plugin_template/model, beside those that all kinds have."""
    config = source.config if source else PLAIN_CONFIG
    full = {**(reference.full if reference else {}), **config}
    flags = reference.biases if reference else {} if source else PLAIN_FLAGS
    made = Fields(full, reference.defaults if reference else {}, flags)
    if source and source.tensors:
        structure, where = read_structure(source.tensors), str(source.path.parent)
    elif reference:
        structure, where = reference.structure, f"a tiny model of transformers {reference.version}"
    else:
        structure, where = read_structure(dict.fromkeys(PLAIN_TENSORS, ()) if not source else {}), ""
    parts = Parts(made, structure, reference)
    answers = {
        "architecture": source.architecture if source else f"{class_name}ForCausalLM",
        "from_config": str(source.path) if source else "",
        "in_transformers": reference is not None,
        "where": where,
        **parts.answers(),
    }
    known = {field.name for field in made.fields} | {*ROPE}
    others = {k: v for k, v in full.items() if k not in known and k not in GENERAL} if source else {}
    matter, tiny = reference.mattering(known) if reference else (None, TINY)
    answers["matter"] = [(name, python(full.get(name)), hint(name)) for name in matter or ()]
    answers["measured"] = matter is not None
    tried = (bool, int, float, type(None))
    answers["untried"] = [
        (k, python(v), hint(k)) for k, v in others.items() if not (answers["measured"] and isinstance(v, tried))
    ]
    others = {k: v for k, v in others.items() if answers["measured"] and isinstance(v, tried)}
    answers["others"] = [(k, python(v), hint(k)) for k, v in others.items() if k not in (matter or ())]
    answers["uncovered"] = [*structure.uncovered, *parts.dropped]
    answers["notes"] = [*made.notes, *parts.notes]
    answers.update(test_data([field.name for field in made.fields], made.flags, tiny, matter or ()))
    answers["test_gains"] = python(GAINS) if structure.qk_norm is not None else ""
    return answers
