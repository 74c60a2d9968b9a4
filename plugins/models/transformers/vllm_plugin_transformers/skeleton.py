"""A model of transformers without memory: constructed on the meta device, its attention named after us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.experts import register_experts
from vllm_plugin_transformers.fill import BUILT
from vllm_plugin_transformers.interface import NAME, register

FIXED = {"return_dict": True, "output_attentions": False, "output_hidden_states": False, "output_router_logits": False}
"""Fields that steer what transformers returns, not what it computes."""
KNOWN_LAYERS = {"full_attention", "sliding_attention", "attention"}


def construct(model_class: Any, config: Mapping[str, Any]) -> Any:
    """``model_class`` as transformers makes it from config.json, in evaluation mode."""
    register()
    register_experts()
    with _quiet():
        return _construct(model_class, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings: an engine constructs its model twice, and errors are raised anyway."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _construct(model_class: Any, config: Mapping[str, Any]) -> Any:
    kind = model_class.config_class
    try:
        made = kind.from_dict({name: value for name, value in config.items() if name not in FIXED})
    except Exception as error:
        raise CannotServe(f"{kind.__name__} does not take this config.json ({error})") from error
    types = getattr(made, "layer_types", None) or ()
    if strange := sorted(set(map(str, types)) - KNOWN_LAYERS):
        raise CannotServe(f"its layers of type {', '.join(strange)} keep or mask otherwise than a paged cache can")
    for name, value in FIXED.items():
        if getattr(made, name, value) != value:
            setattr(made, name, value)
    experts = {"experts_implementation": NAME} if model_class._can_set_experts_implementation() else {}
    try:
        with torch.device("meta"):
            model = model_class._from_config(made, attn_implementation=NAME, dtype=BUILT, **experts)
    except Exception as error:
        raise CannotServe(f"it cannot be constructed ({type(error).__name__}: {error})") from error
    return model.eval()
