"""argparse with our manners: unknown flags name the nearest one, and vLLM's say what takes their place."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from vllm_core.config.errors import did_you_mean
from vllm_core.config.flags import split_plugin_flags
from vllm_core.config.vllm_names import explain_unknown

__all__ = ["Parser", "shown_examples"]

WIDTH = 110  # characters; lines of help are no longer, however wide the terminal


class Parser(argparse.ArgumentParser):
    """For one command. ``args.plugin_flags`` holds ``--plugin.NAME.KEY VALUE``.

    examples   (words after "vllm-core", what they do), shown at the end of the help
    """

    def __init__(self, *, examples: Iterable[tuple[str, str]] = (), **arguments: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=_Formatter, epilog=shown_examples(examples), add_help=False, **arguments
        )
        self._positionals.title, self._optionals.title = "arguments", "flags"
        self.add_argument("-h", "--help", action="help", help="show this help and end")
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        # Without a list of all flags, which stand below.
        shown = (action for action in self._get_positional_actions() if action.help != argparse.SUPPRESS)
        places = [_place(action) for action in shown]
        self.usage = " ".join([self.prog, "[flags]", *places])
        rest, plugin_flags = split_plugin_flags(list(words))
        if self._subparsers is None:  # else a flag may be a sub-command's
            self._refuse_unknown_flags(rest)
            args, unknown = self.parse_known_intermixed_args(rest)
        else:
            args, unknown = self.parse_known_args(rest)
        if unknown:
            self.error(f'"{unknown[0]}" is one argument too many')
        args.plugin_flags = plugin_flags
        return args

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  help    {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value!r} is not known{did_you_mean(str(value), known) or '.'}\n  known   {', '.join(known)}"
            )

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        if action.type in (int, float):
            try:
                return action.type(text)
            except ValueError:
                words = "a whole number" if action.type is int else "a number"
                raise argparse.ArgumentError(action, f"it must be {words}, not {text!r}") from None
        return super()._get_value(action, text)

    def _refuse_unknown_flags(self, words: Sequence[str]) -> None:
        """Before argparse, which would take the value of an unknown flag for another argument."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in words[: words.index("--") if "--" in words else None]:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(f"{flag} is not known{explain_unknown(flag, known)}")


def shown_examples(examples: Iterable[tuple[str, str]]) -> str | None:
    """The lines at the end of a command's help."""
    lines = [(f"vllm-core {words}", f"# {note}" if note else "") for words, note in examples]
    room = max((len(line) for line, note in lines if note), default=0)
    return "\n".join(["examples:", *(f"  {line:<{room}}  {note}".rstrip() for line, note in lines)]) if lines else None


def _place(action: argparse.Action) -> str:
    """A positional argument in the line of usage."""
    name = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest)
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(str(action.nargs), str(name))


class _Formatter(argparse.HelpFormatter):
    """Wide enough that a flag and its help stand side by side. Text with line breaks is taken as it is."""

    def __init__(self, prog: str, **arguments: Any) -> None:
        arguments["width"] = max(60, min(WIDTH, shutil.get_terminal_size((WIDTH + 2, 24)).columns - 2))
        super().__init__(prog, max_help_position=34, **arguments)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines())
