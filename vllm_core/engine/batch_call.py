"""What a call with several prompts brings besides them: a value each, a progress bar, outputs of refused prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.errors import RequestError
from vllm_core.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput

__all__ = ["Bar", "failed_output", "priorities", "progress_bar", "refuse_lora", "sampling_each", "tokenization"]

Bar = bool | Callable[..., Any]  # a progress bar: yes, no, or what makes one as tqdm does


def sampling_each(params: Any, count: int, default: Any) -> list[Any]:
    """One for all, one for each, or the default."""
    if params is None:
        return [default] * count
    if isinstance(params, Sequence):
        if len(params) != count:
            raise ValueError(
                f"{count} prompts came with {len(params)} sampling_params: give one for all, or each its own"
            )
        return [default if given is None else given for given in params]
    return [params] * count


def priorities(priority: Any, count: int, policy: str) -> list[int]:
    """One for all, one for each, or 0. Lower ones run first, where the scheduling policy heeds them."""
    each = [0] * count if priority is None else [priority] * count if type(priority) is int else priority
    if not isinstance(each, Sequence) or isinstance(each, str) or any(type(p) is not int for p in each):
        raise ValueError(f"priority must be whole numbers, one for each prompt, not {priority!r:.80}")
    if len(each) != count:
        raise ValueError(f"{count} prompts came with {len(each)} priorities: give one for all, or each its own")
    if any(each) and policy == EngineSettings().scheduling_policy:
        raise ValueError(
            f'priority has no effect with scheduling_policy="{policy}".\n'
            '  instead start the engine with scheduling_policy="priority" (--scheduling-policy priority)'
        )
    return list(each)


def refuse_lora(lora_request: Any) -> None:
    """``None``, or a list of them, as vLLM takes it; adapters do not exist yet."""
    each = lora_request if isinstance(lora_request, list | tuple) else [lora_request]
    if any(request is not None for request in each):
        raise ValueError("lora_request: adapters are not built yet.\n  instead serve a model with the adapter merged")


def tokenization(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """``tokenization_kwargs`` for ``read_prompt``."""
    for name, value in (kwargs or {}).items():
        if name == "truncate_prompt_tokens":
            raise ValueError(
                "tokenization_kwargs: truncate_prompt_tokens is not taken here.\n"
                "  instead SamplingParams(truncate_prompt_tokens=...)"
            )
        if name != "add_special_tokens":
            raise ValueError(f"tokenization_kwargs has no {name!r:.40}; it takes add_special_tokens")
        if not isinstance(value, bool):
            raise ValueError(f"add_special_tokens must be true or false, not {value!r:.40}")
    return dict(kwargs or {})


class _NoBar:
    def update(self) -> None: ...

    def close(self) -> None: ...


def progress_bar(use_tqdm: Bar, total: int) -> Any:
    if not use_tqdm:
        return _NoBar()
    if callable(use_tqdm):
        return use_tqdm(total=total, desc="Prompts")
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Prompts", dynamic_ncols=True)


def failed_output(name: str, prompt: Any, error: RequestError) -> RequestOutput:
    """Of a prompt that was refused before it became a request."""
    text = prompt if isinstance(prompt, str) else prompt.get("prompt") if isinstance(prompt, dict) else None
    return RequestOutput(
        request_id=name,
        prompt=text if isinstance(text, str) else None,
        prompt_token_ids=[],
        outputs=[CompletionOutput(finish_reason="error")],
        finished=True,
        metrics=RequestMetrics(arrival_time=0.0),
        error=str(error),
    )
