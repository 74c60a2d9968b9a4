"""Methods of vLLM's ``LLM`` that do not exist here yet, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_core.engine.errors import nearest

__all__ = ["explain_missing"]

POOLING = "no model here makes vectors or scores yet"
# Methods of vLLM's LLM that do not exist here, and what to do instead.
NOT_YET = {
    "encode": f"{POOLING}; llm.get_tokenizer().encode(text) gives token ids",
    "embed": POOLING,
    "classify": POOLING,
    "score": POOLING,
    "reward": POOLING,
    "beam_search": "generate with several seeds and keep the best",
    "collective_rpc": "plugins take part in the engine through hooks",
    "apply_model": "plugins take part in the engine through hooks",
    "start_profile": "profile the process from outside; llm.timings has the stages of the start",
    "stop_profile": "profile the process from outside; llm.timings has the stages of the start",
    "sleep": "shutdown() frees the memory; make a new LLM to go on",
    "wake_up": "shutdown() frees the memory; make a new LLM to go on",
    "get_metrics": "each output has .metrics",
    "preprocess_chat": "chat(messages) renders and generates in one",
    "start_weight_update": "make a new LLM with the other weights",
}


def explain_missing(name: str, known: Iterable[str]) -> str:
    """The message of the ``AttributeError``."""
    if name in NOT_YET:
        return f"LLM.{name} does not exist here yet.\n  instead {NOT_YET[name]}"
    return f"LLM has no {name!r}" + ("" if name.startswith("_") else nearest(name, known))
