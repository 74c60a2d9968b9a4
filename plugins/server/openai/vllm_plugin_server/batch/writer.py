"""The output file: in the order of the input, whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

__all__ = ["OrderedWriter"]

FLUSH_EVERY = 100  # lines


class OrderedWriter:
    """Lines go to ``PATH.partial`` as soon as all before them are there, which becomes ``PATH`` when all is done.

    What an interrupted run leaves there is gone on with under ``resume``: ``written`` says how many answers it has,
    and ``ids`` whose they are.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self.ids: list[str | None] = []
        self._early: dict[int, bytes] = {}  # answers that wait for one before them
        self._file: BinaryIO | None = None
        if self.partial.exists():
            if not resume:
                raise ValueError(
                    f"{self.partial} is left from a run that was interrupted.\n"
                    "  instead --resume goes on with it; deleting it begins anew"
                )
            self.ids = _repair(self.partial)
        self.written = len(self.ids)

    def __enter__(self) -> OrderedWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.partial.open("ab")
        return self

    def add(self, index: int, line: bytes) -> None:
        """The answer to request ``index`` of the input, without a line break."""
        assert self._file is not None
        self._early[index] = line
        while (ready := self._early.pop(self.written, None)) is not None:
            self._file.write(ready + b"\n")
            self.written += 1
            if self.written % FLUSH_EVERY == 0:
                self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self.partial, self.path)


class _Id(msgspec.Struct):
    custom_id: str | None = None


def _repair(path: Path) -> list[str | None]:
    """custom_ids of its whole lines; a last line that was cut off is taken away."""
    found: list[str | None] = []
    size = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            found.append(msgspec.json.decode(line, type=_Id).custom_id)
            size += len(line)
    os.truncate(path, size)
    return found
