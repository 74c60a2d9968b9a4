"""``vllm-core COMMAND ...``: find the command, run it, turn what went wrong into a message and an exit code.

0 it worked, 1 it failed, 2 it was asked wrongly, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words[: words.index("--") if "--" in words else None]
    try:
        code = _run(words)
        sys.stdout.flush()  # here, so that a disk that is full or a reader that left is seen
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as leaving:  # argparse, after it printed help or an error
        return leaving.code if isinstance(leaving.code, int) else 1
    except BrokenPipeError:  # the reader went away, e.g. head
        _drop_output()
        return 1
    except Exception as error:
        if debug:
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return _tell(error)


def _drop_output() -> None:
    """What is left in the buffer goes nowhere: at exit Python would fail to write it once more, and say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    from vllm_core.cli import commands

    if not words or words[0] in ("-h", "--help", "help"):
        print(commands.overview())
        return 0
    if words[0] in ("-V", "--version"):
        from vllm_core import __version__

        print(f"vllm-core {__version__}")
        return 0
    return commands.run(words[0], words[1:])


def _tell(error: Exception) -> int:
    from vllm_core.cli.commands import UnknownCommand
    from vllm_core.cli.errors import UsageError
    from vllm_core.config.errors import SettingError
    from vllm_core.plugins.errors import PolicyError

    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    ours = type(error).__module__.startswith("vllm_core")
    if not ours and not isinstance(error, ValueError | OSError | RuntimeError):
        print("  more    --debug shows where", file=sys.stderr)
    return 2 if isinstance(error, SettingError | PolicyError | UnknownCommand | UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
