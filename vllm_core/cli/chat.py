"""``vllm-core chat MODEL [PROMPT]``"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vllm_core.cli.generation import add_generation_flags, engine, stream

__all__ = ["Chat"]

Message = dict[str, str]


class Chat:
    """Answer one message, or talk: on a terminal without a message, lines are asked for until Ctrl-D."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--prompt", dest="message", metavar="TEXT", help="the message, as a flag")
        parser.add_argument("--system", metavar="TEXT", help="a system message before all others")
        add_generation_flags(parser, max_tokens=None)
        parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the message; default: standard input")

    def run(self, args: argparse.Namespace) -> int:
        if args.prompt is not None and args.message is not None:
            raise ValueError("the message was given twice: as PROMPT and as --prompt")
        message = args.prompt if args.message is None else args.message
        if message is None and not sys.stdin.isatty():
            message = sys.stdin.read()
        if message is not None and not message.strip():
            raise ValueError("there is no message: give a PROMPT, or text on standard input")
        history: list[Message] = [{"role": "system", "content": args.system}] if args.system else []
        with engine(args) as (llm, params):
            if message is not None:
                stream(llm, [*history, {"role": "user", "content": message}], params, quiet=args.quiet)
            else:
                self._talk(args, llm, params, history)
        return 0

    def _talk(self, args: argparse.Namespace, llm: Any, params: Any, history: list[Message]) -> None:
        print("Ctrl-D ends, Ctrl-C stops an answer.", file=sys.stderr)
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                print()
                return
            if not line:
                continue
            turn: Message = {"role": "user", "content": line}
            try:
                said = stream(llm, [*history, turn], params, quiet=args.quiet)
            except KeyboardInterrupt:
                print("\n[stopped; this turn is forgotten]")
            except (ValueError, RuntimeError) as error:  # e.g. too long: the talk may go on
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
            else:
                history += [turn, {"role": "assistant", "content": said.text}]
