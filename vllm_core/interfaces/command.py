"""The contract of sub-commands of ``vllm-core``. No torch."""

from __future__ import annotations

import argparse
from typing import Protocol


class CommandLine(Protocol):
    """Made without arguments, for one run of its command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare arguments. Called for ``--help`` too: import nothing heavy."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it. Returns the exit code: 0 it worked, 1 it did not, 2 it was asked wrongly.

        ``ValueError`` and errors of vllm_core are printed as one message, without a
        traceback (``--debug`` shows it).
        """
