"""Requests, scheduling, the step loop. Plugins may import ``AsyncLLM`` from here, and nothing else."""

from typing import TYPE_CHECKING

__all__ = ["AsyncLLM"]

if TYPE_CHECKING:
    from vllm_core.engine.async_llm import AsyncLLM


def __getattr__(name: str):
    if name == "AsyncLLM":
        from vllm_core.engine.async_llm import AsyncLLM

        return AsyncLLM
    raise AttributeError(f"module 'vllm_core.engine' has no attribute {name!r}")
