"""A weight format as the engine comes by it, and checkpoints to read with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import Offer
from vllm_core.testing.asked import Asked
from vllm_core.weights.checkpoint import open_checkpoint

PATIENCE = 300.0  # seconds for all that is done in a process of its own
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


class AskedFormat(Asked):
    """The weight format ``name`` of an installed plugin."""

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__("weight_format", name, "cpu", settings)

    def query(self, path: Path) -> WeightFormatQuery:
        files = sorted(p.name for p in path.iterdir() if p.is_file()) if path.is_dir() else [path.name]
        return WeightFormatQuery(path=str(path), files=tuple(files))

    def offer_for(self, path: Path) -> Offer:
        return self.offer(self.query(path))

    def open(self, path: Path, load_format: str = "") -> Any:
        """`interfaces.weights.Checkpoint`, through the engine's own way of opening one."""
        named = load_format or self.name
        return open_checkpoint(str(path), choose=self.selector.choose, catalog=self.catalog, load_format=named)


@attrs.frozen(eq=False)
class Written:
    """A checkpoint that was written, and opened."""

    path: Path
    checkpoint: Any
    tensors: Mapping[str, Tensor]  # what reading should give


def plain_tensors(dtypes: Sequence[str]) -> dict[str, Tensor]:
    """Random bits of each dtype, numbers that are none and infinities among them, in shapes of 0 to 3 dimensions."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number, dtype in enumerate(dtypes):
        kind = getattr(torch, dtype)
        for shape in ((), (1,), (7,), (33, 20), (3, 4, 10)):
            count = torch.Size(shape).numel()
            bits = torch.randint(0, 2 if kind == torch.bool else 256, (count * kind.itemsize,), generator=generator)
            name = f"model.layers.{number}.part_{len(shape)}_{count}.weight"
            found[name] = bits.to(torch.uint8).view(kind).view(shape)
    return found


def weight_files(path: Path) -> list[Path]:
    """The files that hold weights, those that say where they are included."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and p.name not in BESIDE)


def bits(tensor: Tensor) -> Tensor:
    """For comparisons in which what is no number equals itself."""
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8) if flat.dtype != torch.bool else flat


def in_a_process(job: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What ``weight_format_child`` says about a job, and how it ended: "" if well."""
    done = subprocess.run(
        [sys.executable, "-m", "vllm_core.testing.weight_format_child"],
        input=json.dumps({**job, "path": [str(Path(p).absolute()) if p else str(Path.cwd()) for p in sys.path]}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not done.returncode:
        return said, ""
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    last = done.stderr.strip().splitlines()[-1:] or [""]
    return said, f"{how} {last[0]}".strip()


def parts_of(shape: Sequence[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Rectangles of a tensor: all of it, halves, single lines, and what begins and ends inside, a dimension each."""
    whole = [(0, n) for n in shape]
    yield tuple(whole)
    for d, n in enumerate(shape):
        for part in {(0, n // 2), (n // 2, n), (n - 1, n), (n // 3, n - n // 4)}:
            if part[0] < part[1]:
                yield (*whole[:d], part, *whole[d + 1 :])
    if len(shape) > 1:
        yield tuple((n // 4, n - n // 3) for n in shape)
