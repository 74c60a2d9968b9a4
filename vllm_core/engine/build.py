"""From choices to a running engine: the tokenizer, the loaded model, and what ``LLM`` and servers work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.grammars import Grammars
from vllm_core.engine.parsers import Parsers
from vllm_core.engine.resolve import Resolved, resolve
from vllm_core.engine.sinks import Sinks, open_sinks
from vllm_core.engine.text import Text, read_text
from vllm_core.engine.timing import timed
from vllm_core.interfaces.executor import Capacity, Executor
from vllm_core.plugins import Decision, Lock
from vllm_core.runner.chosen import Chosen

__all__ = ["BuiltEngine", "Text", "build_engine", "build_resolved", "open_text", "start_executor"]


@attrs.frozen(kw_only=True)
class BuiltEngine:
    """What ``LLM`` works with."""

    settings: EngineSettings
    executor: Executor
    capacity: Capacity
    max_model_len: int
    max_step_tokens: int
    tokenizer: Any  # interfaces.tokenizer.Tokenizer, None if skipped
    renderer: Any  # interfaces.tokenizer.ChatRenderer, None without a tokenizer
    parsers: Parsers | None  # of tool calls and reasoning, None without a tokenizer
    eos_token_ids: tuple[int, ...]
    policy: Chosen  # of the order of requests
    processors: Sequence[Chosen]  # logits processors
    grammars: Grammars | None  # None: no request can have one
    sinks: Sinks  # of the engine's figures
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    lock: Lock
    decisions: Sequence[Decision]
    warnings: Sequence[str]  # about plugins: quarantined ones, names in the policy that nobody has
    timings: dict[str, float]  # seconds by stage


def open_text(resolved: Resolved) -> Text:
    """Read the tokenizer and its chat template, and find the parsers that were named."""
    config = resolved.build.model.config
    return read_text(resolved.selector, resolved.settings, resolved.checkpoint, config, resolved.eos_token_ids)


def start_executor(resolved: Resolved, text: Text | None = None) -> tuple[Executor, Capacity]:
    """Start the processes of the model and load it. Whoever gets the executor stops it.

    text   if it was opened already; else it is when a grammar needs it
    """
    executor = resolved.executor_target(resolved.build)
    try:
        capacity = executor.start()
        resolved.build.grammars.backends.opens(lambda: text or open_text(resolved), capacity.vocab_size)
        return executor, capacity
    except BaseException:
        executor.stop()
        raise


def build_engine(settings: EngineSettings) -> BuiltEngine:
    """Resolve, load the model and the tokenizer, and start the executor."""
    return build_resolved(resolve(settings))


def build_resolved(resolved: Resolved) -> BuiltEngine:
    """The same, when every choice has been made."""
    timings = resolved.timings
    with timed(timings, "tokenizer"):
        text = open_text(resolved)
    sinks = open_sinks(resolved.sinks)
    executor, capacity = start_executor(resolved, text)
    timings.update(capacity.timings)
    return BuiltEngine(
        settings=resolved.settings,
        executor=executor,
        capacity=capacity,
        max_model_len=resolved.build.model.max_model_len,
        max_step_tokens=resolved.max_step_tokens,
        tokenizer=text.tokenizer,
        renderer=text.renderer,
        parsers=text.parsers,
        eos_token_ids=text.eos_token_ids,
        policy=resolved.policy,
        processors=resolved.build.processors,
        grammars=resolved.build.grammars,
        sinks=sinks,
        config=resolved.build.model.config,
        generation_config=resolved.generation_config,
        warnings=resolved.warnings,
        lock=resolved.lock,
        decisions=resolved.selector.decisions,
        timings=timings,
    )
