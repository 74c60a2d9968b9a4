"""What a weight format makes of files that are damaged, lie about themselves, or are made to run code."""

from __future__ import annotations

import io
import random
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.testing.weight_format_case import AskedFormat, Written, in_a_process, weight_files

FLIPPED = 150  # files with other bytes at their beginning or end
EDGE = 4096  # bytes at either end that are changed


@attrs.frozen
class Damage:
    """A file that was changed, and what became of it."""

    kind: str
    what: str  # was changed
    file: str  # its name

    def __str__(self) -> str:
        return f"{self.file}, {self.what}"


Troubles = Mapping[str, Sequence[str]]
"""Kind of damage -> what is wrong with what became of it, a line each."""


class FormatDamage:
    """Each file is opened and read in a process of its own, with 4 GiB of memory.

    Refused is a file by a ``ValueError`` that names it, such as `vllm_core.weights.CheckpointError`.
    """

    lies: Any
    padding: ClassVar[int]

    @pytest.fixture(scope="class")
    @classmethod
    def troubles(
        cls,
        request: pytest.FixtureRequest,
        asked: AskedFormat,
        written: Written,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Troubles:
        return request.cls().damage(asked, written, tmp_path_factory.mktemp("damaged"))

    def test_a_file_that_is_cut_off_is_refused_when_it_is_opened(self, troubles: Troubles) -> None:
        _none(troubles["cut off"])

    def test_a_file_that_contradicts_itself_is_refused(self, troubles: Troubles) -> None:
        _none(troubles["lies"])

    def test_other_bytes_are_refused_or_read_as_what_the_file_then_says(self, troubles: Troubles) -> None:
        """A changed name or number may go unnoticed; nothing may crash, fill the memory, or raise anything else."""
        _none(troubles["flipped"])

    def test_nothing_is_unpickled(self, troubles: Troubles) -> None:
        """Neither while a right file is read, nor from one that is a pickle."""
        _none(troubles["pickled"])

    def damage(self, asked: AskedFormat, written: Written, folder: Path) -> Troubles:
        """Changes each weight file in every way, and has all of them opened and read."""
        marker, paths = folder / "code-was-run", dict[str, Damage]()
        for file in weight_files(written.path):
            content = file.read_bytes()
            changes = {
                "cut off": cut_off(content, self.padding),
                "lies": self.lies(content),
                "flipped": flipped(content),
                "pickled": pickled(marker),
            }
            for kind, others in changes.items():
                for number, (what, other) in enumerate(others.items()):
                    path = _copy(written.path, folder / f"{kind}-{file.name}-{number}", file.name, other)
                    paths[str(path)] = Damage(kind, what, file.name)
        good = str(written.path)
        job = {"job": "damage", "target": asked.offer_for(written.path).target, "good": good, "paths": [good, *paths]}
        said, ended = in_a_process(job)
        done = {line["ended"]: line for line in said if "ended" in line}
        assert good in done, f"the checkpoint as it was written does not open: {ended}"
        found: dict[str, list[str]] = {kind: [] for kind in ("cut off", "lies", "flipped", "pickled")}
        found["pickled"] += [f"the file as it was written: {why}" for why in _unpickled(done[good])]
        for where, damage in paths.items():
            if where in done:
                found[damage.kind] += [f"{damage}: {why}" for why in _wrong(done[where], damage)]
            elif any(line.get("begun") == where for line in said):
                found[damage.kind].append(f"{damage}: the process that read it was ended by {ended}")
        if marker.exists():
            found["pickled"].append("code that a checkpoint brought was run")
        return found


def _copy(checkpoint: Path, into: Path, file: str, content: bytes) -> Path:
    """A checkpoint with another content of one of its files."""
    shutil.copytree(checkpoint if checkpoint.is_dir() else checkpoint.parent, into)
    (into / file).write_bytes(content)
    return into if checkpoint.is_dir() else into / checkpoint.name


def cut_off(content: bytes, padding: int = 0) -> dict[str, bytes]:
    """What is left of a file that was not downloaded to its end; its last bytes may be ``padding``."""
    size = len(content) - padding
    lengths = {0, 1, 3, 4, 7, 8, 12, 20, 40, 100, size // 8, size // 4, size // 2, size - 100, size - 8, size - 1}
    return {f"cut off after {n:,} of {size:,} bytes": content[:n] for n in sorted(lengths) if 0 <= n < size}


def flipped(content: bytes) -> dict[str, bytes]:
    """Bytes changed one by one, and eight at a time to the smallest and largest there are."""
    made, found = random.Random(0), {}
    places = [*range(min(EDGE, len(content)))] * 2 + [*range(max(0, len(content) - EDGE), len(content))]
    for number in range(FLIPPED):
        at = number if number < min(24, len(content)) else made.choice(places)
        other = bytearray(content)
        if number % 3:
            other[at] ^= 1 << made.randrange(8)
            what = f"a bit changed in byte {at:,}"
        else:
            value = made.choice((0, 0xFF))
            other[at : at + 8] = bytes([value]) * len(other[at : at + 8])
            what = f"bytes {at:,} to {at + 7:,} changed to {value:#04x}"
        found[what] = bytes(other)
    return found


def pickled(marker: Path) -> dict[str, bytes]:
    """Pickles, and containers of them, that make a file when they are read by Python's own reader."""
    program = f"cio\nopen\n(S{str(marker)!r}\nS'w'\ntR.".encode()
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + program
    return {
        "a pickle in its place": program,
        "an archive as torch.save makes it in its place": _zipped({"archive/data.pkl": program}),
        "an array of Python's objects in its place": array,
        "an archive of such arrays in its place": _zipped({"model.norm.weight.npy": array}),
    }


def _zipped(members: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def _unpickled(line: Mapping[str, Any]) -> Iterator[str]:
    if line["unpickled"]:
        yield f"{line['stage']} it goes through pickle, which runs what a file's author put there"


def _wrong(line: Mapping[str, Any], damage: Damage) -> Iterator[str]:
    stage, error, message = line["stage"], line["error"], line["message"]
    shown = f"{error}: {message[:200]}"
    if line["unpickled"]:
        yield from _unpickled(line)
    elif error and not line["refused"]:
        yield f"{stage} it raises {shown}; a ValueError that names the file would say what is wrong"
    elif error and damage.file not in message:
        yield f"it is refused without its name: {shown}"
    elif not error and damage.kind != "flipped":
        yield "it is opened and read as if nothing were wrong"
    elif error and damage.kind == "cut off" and stage != "opening":
        yield f"it is refused only while tensors are read ({shown}), when memory has been planned and given out"


def _none(found: Sequence[str]) -> None:
    __tracebackhide__ = True
    more = f"\n  and {len(found) - 8} more" if len(found) > 8 else ""
    assert not found, f"{len(found)} files are not refused as they should be:\n  " + "\n  ".join(found[:8]) + more
