"""The engine that is measured: any setting by its flag, and prefix caching off unless it is asked for."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings, tell
from vllm_core.cli.errors import UsageError
from vllm_core.config.engine import EngineSettings

__all__ = ["add_flags", "check_counts", "check_fits", "engine", "generate", "settings"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """MODEL, ``--model`` as vLLM has it, and all settings."""
    add_engine_flags(parser, optional=True)
    parser.add_argument("--model", dest="model_flag", metavar="MODEL", help="the model, as a flag")


def settings(args: argparse.Namespace, prefix_caching: bool = False) -> EngineSettings:
    """The engine's settings; plugins' own are checked too. ``prefix_caching``: unless something else is asked for."""
    if args.model is not None and args.model_flag is not None:
        raise UsageError("the model was given twice: as MODEL and as --model")
    args.model, args.model_flag = args.model or args.model_flag, None
    loaded = engine_settings(args)
    if not loaded.settings.model:
        raise UsageError("no model was named.\n  instead vllm-core bench ... MODEL, or model in [engine] of vllm.toml")
    tell(check_plugins(loaded).notices)
    if loaded.sources["enable_prefix_caching"] == "default":
        return attrs.evolve(loaded.settings, enable_prefix_caching=prefix_caching)
    return loaded.settings


def check_counts(args: argparse.Namespace, **least: int) -> None:
    """Refuse counts that are too small: ``num_prompts=1`` is the least of ``--num-prompts``."""
    for name, low in least.items():
        if getattr(args, name) < low:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {low}, not {getattr(args, name)}")


@contextmanager
def engine(wanted: EngineSettings) -> Iterator[Any]:
    """An ``LLM``, ended afterwards; its memory is given back, as another engine may follow."""
    import torch

    from vllm_core import LLM

    llm = LLM.from_settings(wanted)
    try:
        yield llm
    finally:
        llm.shutdown()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def check_fits(llm: Any, prompts: Sequence[Sequence[int]], output_lens: Sequence[int]) -> None:
    """Refuse a workload that is longer than the engine's sequences, before it runs."""
    fits = llm.built.max_model_len
    for prompt, wanted in zip(prompts, output_lens, strict=True):
        if len(prompt) + wanted > fits:
            raise UsageError(
                f"{len(prompt):,} input and {wanted:,} output tokens are longer than the {fits:,} that fit.\n"
                "  instead a smaller --input-len or --output-len, or a larger --max-model-len"
            )


def generate(
    llm: Any, prompts: Sequence[Sequence[int]], output_lens: Sequence[int], *, text: bool = True, bar: Any = False
) -> Any:
    """Greedy outputs of exactly these lengths."""
    from vllm_core import SamplingParams

    wanted = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=text) for n in output_lens]
    outputs = llm.generate([{"prompt_token_ids": list(p)} for p in prompts], wanted, use_tqdm=bar)
    for output, length in zip(outputs, output_lens, strict=True):
        if output.error or len(output.outputs[0].token_ids) != length:
            raise RuntimeError(output.error or f"{len(output.outputs[0].token_ids)} tokens came instead of {length}")
    return outputs
