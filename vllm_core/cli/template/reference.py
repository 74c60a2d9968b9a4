"""What transformers knows of an architecture: its configuration's defaults, tensor names, and which fields matter.

Its model is built tiny, on the meta device for names and on the CPU to see what a field changes. Some seconds.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from vllm_core.cli.template.tensors import Structure, read_structure

__all__ = ["GAINS", "GENERAL", "Reference", "consult"]

SIZES = {
    "vocab_size": 103,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
WINDOW = 10  # tokens
GAINS = {"*.q_*norm.weight": 2.0}
"""A norm takes the scale out of q and k, so that larger matrices alone would not make attention pick."""
GENERAL = frozenset({"architectures", "model_type", "initializer_range", "use_cache", "max_position_embeddings",
                     "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype", "transformers_version",
                     "auto_map", "_name_or_path", "quantization_config", "rope_theta", "rope_scaling",
                     "tokenizer_class", "pretraining_tp", "attention_dropout", "hidden_dropout", "resid_pdrop",
                     "attn_pdrop", "embd_pdrop", "residual_dropout", "embedding_dropout",
                     "output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward",
                     "is_encoder_decoder", "id2label", "label2id", "problem_type"})  # fmt: skip
"""Fields of config.json that say nothing about the arithmetic, or that are read with others."""


@attrs.frozen(kw_only=True)
class Reference:
    """transformers' view. Fields are those of its configuration class."""

    full: dict[str, Any]  # the given configuration with every default filled in
    defaults: dict[str, Any]  # of the class alone
    tiny: dict[str, Any]  # of a small model with the same choices, as tests want it
    structure: Structure  # of the tiny model
    biases: dict[str, frozenset[str]]  # flag -> the biases that come and go with it
    norm: str  # its class of the layers' norms; "" if there is none
    interleaved: bool  # rotary positions turn neighbours in a head, not elements half a head apart
    version: str

    def mattering(self, known: Collection[str]) -> tuple[list[str] | None, dict[str, Any]]:
        """Other fields than ``known`` that change what a tiny model computes, and the fields of that model.

        Published factors may make random weights hide everything; then the factors are the class's own, or 1.
        None: it could not be measured.
        """
        factors = [k for k, v in self.tiny.items() if isinstance(v, float) and k not in known]
        plain = {k: self.defaults[k] for k in factors}, dict.fromkeys(factors, 1.0)
        for tiny in (self.tiny, *({**self.tiny, **others} for others in plain)):
            with contextlib.suppress(Exception):
                return self._read_by_reference(tiny, {*known, *GENERAL, *SIZES}), tiny
        return None, self.tiny

    def _read_by_reference(self, tiny: Mapping[str, Any], skip: Collection[str]) -> list[str]:
        from vllm_core.testing.case import Case
        from vllm_core.testing.reference_fields import read_by_reference

        model_class = _class_of(self.full["architectures"][0])
        with tempfile.TemporaryDirectory() as folder, _quiet():
            case = Case(
                name="tiny",
                model_class=model_class,
                config=tiny,
                folder=Path(folder),
                tolerance=1e-4,
                gains=GAINS if self.structure.qk_norm is not None else {},
            )
            return read_by_reference(case, skip=skip)


def consult(config: Mapping[str, Any]) -> Reference | None:
    """None if transformers has no such architecture, or cannot build it from this configuration."""
    with _quiet():
        import transformers

        model_class = _class_of(config["architectures"][0])
        if model_class is None:
            return None
        try:
            kind = model_class.config_class
            full = kind(**{k: v for k, v in config.items() if k not in ("quantization_config", "auto_map")}).to_dict()
            plain = kind().to_dict()
            # As they are declared: what follows from other fields is None there.
            declared = {name: getattr(kind, name, value) for name, value in plain.items()}
            declared |= {name: plain[name] for name in plain.keys() & {"rope_parameters"}}
            general = transformers.PretrainedConfig().to_dict().keys() - {"tie_word_embeddings"} - config.keys()
            full = {k: v for k, v in full.items() if k not in general and (k in declared or k in config)}
            full["architectures"] = list(config["architectures"])
            tiny = _tiny(full, declared)
            shapes, norm = _build(model_class, tiny)
        except Exception:
            return None
        structure = read_structure(shapes)
        return Reference(
            full=full,
            defaults=declared,
            tiny=tiny,
            structure=structure,
            biases=dict(_flags(model_class, tiny, full, structure)),
            norm=norm,
            interleaved=_interleaved(model_class),
            version=transformers.__version__,
        )


def _class_of(architecture: str) -> Any:
    import transformers

    return getattr(transformers, architecture, None)


def _interleaved(model_class: Any) -> bool:
    """Whether the function that rotates takes every second element: no field of a configuration says so."""
    rotate = getattr(sys.modules[model_class.__module__], "rotate_half", None)
    return rotate is not None and "::2" in inspect.getsource(rotate)


def _tiny(full: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for a small model that takes the same branches."""
    tiny: dict[str, Any] = {name: size for name, size in SIZES.items() if name in full}
    heads, kv_heads = full.get("num_attention_heads"), full.get("num_key_value_heads")
    if "num_key_value_heads" in full:
        tiny["num_key_value_heads"] = 4 if kv_heads in (heads, None) else 1 if kv_heads == 1 else 2
    if full.get("head_dim"):
        tiny["head_dim"] = 16
    if full.get("sliding_window"):
        tiny["sliding_window"] = WINDOW
    if full.get("layer_types"):
        kinds = list(dict.fromkeys(full["layer_types"]))
        tiny["layer_types"] = [kinds[i % len(kinds)] for i in range(SIZES["num_hidden_layers"])]
    if isinstance(rope := full.get("rope_parameters"), dict) and "rope_type" in rope:
        kept = {k: v for k, v in rope.items() if k == "partial_rotary_factor"}
        tiny["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0, **kept}
    for name, value in full.items():
        plain = isinstance(value, bool | float) or (isinstance(value, str) and "act" in name)
        if plain and name not in GENERAL and name in declared and "dropout" not in name:
            tiny.setdefault(name, 1e-3 if name.endswith(("_eps", "_epsilon")) else value)
    if isinstance(full.get("pad_token_id"), int) and full["pad_token_id"] >= SIZES["vocab_size"]:
        tiny["pad_token_id"] = None
    return tiny


def _build(model_class: Any, fields: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Names and shapes of the parameters, and the class of the norms inside layers."""
    import torch

    from vllm_core.testing.reference import make_config

    with torch.device("meta"):
        model = model_class(make_config(model_class, fields))
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    norms = [type(m).__name__ for name, m in model.named_modules() if "norm" in name.lower() and ".0." in name]
    return shapes, norms[0] if norms else ""


def _flags(
    model_class: Any, tiny: Mapping[str, Any], full: Mapping[str, Any], structure: Structure
) -> Iterator[tuple[str, frozenset[str]]]:
    """Each flag that makes biases, and which: seen by turning it over."""
    for name, value in full.items():
        if not isinstance(value, bool) or name in GENERAL or name == "tie_word_embeddings":
            continue
        try:
            other = read_structure(_build(model_class, {**tiny, name: not value})[0])
        except Exception:
            continue
        if other.biases != structure.biases and set(other.rules) == set(structure.rules):
            yield name, other.biases ^ structure.biases


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' remarks about tiny configurations."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
