"""``vllm-core complete MODEL PROMPT ...``"""

from __future__ import annotations

import argparse
import sys

from vllm_core.cli.generation import add_generation_flags, engine, stream

__all__ = ["Complete"]

MAX_TOKENS = 128  # a base model seldom stops by itself


class Complete:
    """Continue each text, one after another; without PROMPT, the text on standard input."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_generation_flags(parser, max_tokens=MAX_TOKENS)
        parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="text to continue; default: standard input")

    def run(self, args: argparse.Namespace) -> int:
        prompts = args.prompts or [sys.stdin.read()]
        if not all(prompts):
            raise ValueError("there is no text to continue: give a PROMPT, or text on standard input")
        with engine(args) as (llm, params):
            for prompt in prompts:
                stream(llm, prompt, params, quiet=args.quiet)
        return 0
