"""The talk of ``vllm-core chat``: line by line, the conversation kept, a few commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from vllm_core.plugins.errors import did_you_mean

__all__ = ["Message", "Talk", "lines_of_input", "lines_of_terminal"]

Message = dict[str, str]
COMMANDS = {
    "/help": "show this",
    "/clear": "forget the conversation; a system message stays",
    "/exit": "end, as Ctrl-D does",
}
_COMMAND = re.compile(r"/[a-z]+")  # of a whole line: /etc/hosts is none


class Talk:
    """Messages of a user, each answered with all that was said before.

    answer     prints the answer to a conversation, and returns it
    opening    what the conversation begins with: a system message, or nothing
    patient    whether a person is there: mistakes and Ctrl-C then end an answer, not the talk
    """

    def __init__(self, answer: Callable[[list[Message]], str], opening: list[Message], *, patient: bool) -> None:
        self._answer, self._opening, self._patient = answer, opening, patient
        self.history = list(opening)

    def run(self, lines: Iterator[str]) -> None:
        """Until there are no more lines, or one of them is ``/exit``."""
        for line in map(str.strip, lines):
            if _COMMAND.fullmatch(line):
                if line == "/exit":
                    return
                self._command(line)
            elif line:
                self._turn(line)

    def _command(self, line: str) -> None:
        if line == "/help":
            _note("\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items()))
            _note("  Ctrl-C   stop the answer")
        elif line == "/clear":
            self.history = list(self._opening)
            _note("[the conversation is forgotten]")
        else:
            _note(f"there is no {line}{did_you_mean(line, COMMANDS) or '; /help lists what there is'}")

    def _turn(self, line: str) -> None:
        turn: Message = {"role": "user", "content": line}
        try:
            said = self._answer([*self.history, turn])
        except KeyboardInterrupt:
            if not self._patient:
                raise
            print(flush=True)
            _note("[stopped; this turn is forgotten]")
        except (ValueError, RuntimeError) as error:  # e.g. too long
            if not self._patient:
                raise
            _note(f"{type(error).__name__}: {error}")
            if len(self.history) > len(self._opening):
                _note("  instead /clear forgets the conversation so far")
        else:
            self.history += [turn, {"role": "assistant", "content": said}]


def lines_of_input() -> Iterator[str]:
    """Lines of standard input that say something."""
    return (line for line in sys.stdin if line.strip())


def lines_of_terminal() -> Iterator[str]:
    """Lines that a person types, with the keys of readline where it is built in. Ends with Ctrl-D."""
    with suppress(ImportError):
        import readline  # noqa: F401  # input() uses it from now on
    _note("/help lists commands, Ctrl-C stops an answer, Ctrl-D ends.")
    while True:
        try:
            yield _asked("> ")
        except KeyboardInterrupt:
            _note("\n[Ctrl-D or /exit ends]")
        except EOFError:
            _note("")
            return


def _asked(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # standard output is a file: answers only
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _note(text: str) -> None:
    """To the person, not into the answer."""
    print(text, file=sys.stderr, flush=True)
