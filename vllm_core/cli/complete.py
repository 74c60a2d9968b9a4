"""``vllm-core complete MODEL PROMPT ...``"""

from __future__ import annotations

import argparse
import sys

from vllm_core.cli.errors import UsageError
from vllm_core.cli.generation import add_generation_flags, engine, stream

__all__ = ["Complete"]

MAX_TOKENS = 128  # a base model seldom stops by itself


class Complete:
    """Continue each text, one after another; without PROMPT, the text on standard input."""

    about = (
        "Continues a text as it stands, without a chat template: what base models are for. Several texts are "
        "continued one after another."
    )
    examples = (
        ('complete ./my-model "Once upon a time" --max-tokens 40', ""),
        ('complete ./my-model "Dear Sir," "Dear Madam," --temperature 0 --quiet', "text alone, twice"),
        ("complete ./my-model < letter.txt > continued.txt", "figures stay on the terminal"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_generation_flags(parser, max_tokens=MAX_TOKENS)
        parser.add_argument(
            "prompts", nargs="*", default=[], metavar="PROMPT", help="text to continue; default: standard input"
        )

    def run(self, args: argparse.Namespace) -> int:
        if not args.prompts and sys.stdin.isatty():
            print("the text to continue, then Ctrl-D:", file=sys.stderr)
        prompts = args.prompts or [sys.stdin.read()]
        if not all(prompts):
            raise UsageError("there is no text to continue: give a PROMPT, or text on standard input")
        with engine(args) as (llm, params):
            for i, prompt in enumerate(prompts):
                stream(llm, prompt, params, quiet=args.quiet, first_answer=i == 0)
        return 0
