"""Text as wide as the terminal; unwrapped where nobody looks, so that a line can be searched for."""

from __future__ import annotations

import shutil
import sys
import textwrap

__all__ = ["columns", "labelled", "one_line", "printable"]

_MOST = 2000  # characters of a text that a plugin brings


def columns() -> int | None:
    """Width of the terminal in characters; None if standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def printable(text: object) -> str:
    """What a plugin says, so that a terminal can show it: no control characters but line breaks, and not endless."""
    text = str(text)
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:_MOST])
    return shown + "..." * (len(text) > _MOST)


def one_line(text: str) -> str:
    """Without line breaks: what plugins raise may have any number of lines."""
    return " ".join(text.split())


def labelled(label: str, text: str, width: int | None, indent: int = 2, room: int = 7) -> list[str]:
    """Lines ``  label   text ...``, the text hanging below itself. ``room``: characters for the label."""
    head = " " * indent + f"{label:<{room}} "
    if width is None:
        return [head + one_line(text)]
    return textwrap.wrap(
        one_line(text),
        max(width, len(head) + 20),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
