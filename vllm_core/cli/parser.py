"""argparse with our manners: unknown flags name the nearest one, and vLLM's say what takes their place."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from vllm_core.config.flags import split_plugin_flags
from vllm_core.config.vllm_names import explain_unknown

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """For one command. ``args.plugin_flags`` holds ``--plugin.NAME.KEY VALUE``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **arguments)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
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

    def _refuse_unknown_flags(self, words: Sequence[str]) -> None:
        """Before argparse, which would take the value of an unknown flag for another argument."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in words[: words.index("--") if "--" in words else None]:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(f"{flag} is not known{explain_unknown(flag, known)}")


class _Formatter(argparse.HelpFormatter):
    """Wide enough that a flag and its help stand side by side."""

    def __init__(self, prog: str, **arguments: Any) -> None:
        super().__init__(prog, max_help_position=34, width=110, **arguments)
