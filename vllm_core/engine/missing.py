"""Methods of vLLM's ``LLM`` that do not exist here yet, and what to use instead."""

from __future__ import annotations

from collections.abc import Iterable

from vllm_core.engine.errors import nearest

__all__ = ["explain_missing"]

POOLING = "no model here makes vectors or scores yet"
ADMIN = "plugins take part in the engine through hooks"
PROFILE = "profile the process from outside; llm.timings has the stages of the start"
SLEEP = "shutdown() frees the memory; make a new LLM to go on"
WEIGHTS = "make a new LLM with the other weights"
LATER = "generate and chat wait for all answers, stream yields one as it grows; AsyncLLM takes requests at any time"
# Methods and attributes of vLLM's LLM (0.16) that do not exist here, and what to do instead.
NOT_YET = {
    "encode": f"{POOLING}; llm.get_tokenizer().encode(text) gives token ids",
    "embed": POOLING,
    "classify": POOLING,
    "score": POOLING,
    "reward": POOLING,
    "beam_search": "SamplingParams(n=...) draws several answers; keep the one with the highest cumulative_logprob",
    "collective_rpc": ADMIN,
    "apply_model": ADMIN,
    "llm_engine": f"{ADMIN}; llm.built has its parts, llm.settings its settings",
    "model_config": "llm.built.config is config.json as it is served, llm.settings what was asked for",
    "start_profile": PROFILE,
    "stop_profile": PROFILE,
    "sleep": SLEEP,
    "wake_up": SLEEP,
    "get_metrics": "each output has .metrics",
    "preprocess_chat": "render_chat(messages) gives the prompt that chat makes of a conversation",
    "reset_mm_cache": "images, audio and video are not supported yet, and nothing of them is cached",
    "get_world_size": "llm.settings.tensor_parallel_size times pipeline_parallel_size",
    "set_tokenizer": "LLM(..., tokenizer=a folder or Hub id)",
    "from_engine_args": "LLM(MODEL, setting=value), or LLM.from_settings(EngineSettings(...))",
    "default_sampling_params": "get_default_sampling_params()",
    "request_counter": "requests count themselves; each output has .request_id",
    "enqueue": LATER,
    "wait_for_completion": LATER,
    "init_weight_transfer_engine": WEIGHTS,
    "update_weights": WEIGHTS,
    "start_weight_update": WEIGHTS,
    "finish_weight_update": WEIGHTS,
    "supported_tasks": "models generate; " + POOLING,
    "runner_type": "models generate; " + POOLING,
}


def explain_missing(name: str, known: Iterable[str]) -> str:
    """The message of the ``AttributeError``."""
    if name in NOT_YET:
        return f"LLM.{name} does not exist here yet.\n  instead {NOT_YET[name]}"
    return f"LLM has no {name!r}" + ("" if name.startswith("_") else nearest(name, known))
