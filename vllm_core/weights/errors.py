"""What goes wrong with checkpoints, as errors that name files and tensors."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 12  # names listed of each kind before "and N more"


class RuleError(ValueError):
    """A table of weight rules contradicts itself."""


class CheckpointError(ValueError):
    """A checkpoint could not be found, opened or understood."""


class WeightsError(ValueError):
    """A checkpoint's tensors and a model's parameters do not fit together."""


def listing(lines: Iterable[str], indent: str = "    ") -> str:
    """The first few lines, and how many more there are."""
    lines = list(lines)
    shown = lines[:SHOWN]
    if len(lines) > SHOWN:
        shown.append(f"... and {len(lines) - SHOWN:,} more")
    return "\n".join(indent + line for line in shown)
