"""``vllm-core chat MODEL [PROMPT]``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, count

from vllm_core.cli.errors import UsageError
from vllm_core.cli.generation import add_generation_flags, engine, stream
from vllm_core.cli.talk import Message, Talk, lines_of_input, lines_of_terminal

__all__ = ["Chat"]


class Chat:
    """Answer one message, or talk: with a person at a terminal, or with the lines of standard input."""

    about = (
        "Answers a message through the model's chat template. Without a message it is a talk, in which the "
        "model remembers what was said: at a terminal until Ctrl-D, else with each line of standard input as "
        "a message."
    )
    examples = (
        ("chat ./my-model", "talk"),
        ('chat ./my-model "What is the capital of France?" --temperature 0', "one answer"),
        ('chat ./my-model --system "Answer in one word." < questions.txt', "a line, a message"),
        ("chat ./my-model - --quiet < letter.txt > answer.txt", "a whole file as one message"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--prompt", dest="message", metavar="TEXT", help="the message, as a flag")
        parser.add_argument("--system", metavar="TEXT", help="a system message before all others")
        add_generation_flags(parser, max_tokens=None)
        parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the message; -: all of standard input")

    def run(self, args: argparse.Namespace) -> int:
        if args.prompt is not None and args.message is not None:
            raise UsageError("the message was given twice: as PROMPT and as --prompt")
        message = args.prompt if args.message is None else args.message
        if message == "-":
            message = sys.stdin.read()
        if message is not None and not message.strip():
            raise UsageError("there is no message: give a PROMPT, or lines on standard input")
        person = message is None and sys.stdin.isatty()
        lines = iter(()) if person or message is not None else _some(lines_of_input())
        opening: list[Message] = [{"role": "system", "content": args.system}] if args.system else []
        turns = count()
        with engine(args) as (llm, params):

            def answer(messages: list[Message]) -> str:
                return stream(llm, messages, params, quiet=args.quiet, first_answer=next(turns) == 0).text

            if message is not None:
                answer([*opening, {"role": "user", "content": message}])
            else:
                Talk(answer, opening, patient=person).run(lines_of_terminal() if person else lines)
        return 0


def _some(lines: Iterator[str]) -> Iterator[str]:
    """The lines; ``UsageError`` if there is none, before a model is loaded."""
    for first in lines:
        return chain([first], lines)
    raise UsageError("there is no message: give a PROMPT, or lines on standard input")
