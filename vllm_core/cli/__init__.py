"""The command line, ``vllm-core``. Importing it imports no torch."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    from vllm_core.cli.__main__ import main

    return main(argv)
