"""The contract of sub-commands of ``vllm-core``. No torch."""

from __future__ import annotations

import argparse
from typing import Protocol


class CommandLine(Protocol):
    """Made without arguments, for one run of its command.

    Four attributes may be there besides: ``about``, the text at the top of ``--help`` (else the command's summary);
    ``examples``, pairs of the words after "vllm-core" and what they do, for its end; ``commands``, records of
    ``plugin.Command`` that the command is a group of, in place of both methods; with it ``default``, the name of
    the one that runs where none is named.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare arguments. Called for ``--help`` too: import nothing heavy."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it. Returns the exit code: 0 it worked, 1 it did not, 2 it was asked wrongly.

        ``ValueError`` and errors of vllm_core are printed as one message, without a
        traceback (``--debug`` shows it).
        """
