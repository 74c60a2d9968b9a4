"""GPUs, hosts and links: a table of figures each (hardware.toml), or numbers that the user gives."""

from __future__ import annotations

import math
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import cattrs

from vllm_core.commands import UsageError

__all__ = ["Gpu", "Host", "Link", "read_gpu", "read_host", "read_link"]


@attrs.frozen(kw_only=True)
class Gpu:
    """What the comments of hardware.toml say, by the same names."""

    name: str
    source: str
    measured: bool = False
    memory_mib: int
    multiprocessors: int
    bandwidth: float
    product_flops: float
    attention_flops: float
    half_tile: float
    product_seconds: float
    pass_seconds: float
    pass_bandwidth: float
    attention_seconds: float
    attention_row_seconds: float
    stack_seconds: float
    step_seconds: float
    row_seconds: float
    process_mib: int
    step_flops: float


@attrs.frozen(kw_only=True)
class Host:
    schedule_row_seconds: float
    retire_row_seconds: float
    prepare_row_seconds: float
    step_seconds: float
    prompt_token_seconds: float
    launch_seconds: float
    layer_launches: int
    recorded_tokens: int


@attrs.frozen
class Link:
    """bandwidth  bytes/s of one GPU in one direction
    latency    seconds from one GPU to another
    """

    name: str
    bandwidth: float
    latency: float

    def seconds(self, size: float) -> float:
        """To send so many bytes."""
        return self.latency + size / self.bandwidth


def read_gpu(name: str) -> Gpu:
    """A name of hardware.toml, or a .toml file with one such table: ``[gpu.NAME]``."""
    known = _tables()["gpu"]
    tables = known
    if name.endswith(".toml"):
        given = _own_file(Path(name))
        name, tables = next(iter(given)), known | given
    if name not in tables:
        raise UsageError(
            f"--hardware {name} is not known.\n  known   {', '.join(known)}\n"
            '  instead a file "mine.toml" with [gpu.mine], like = "h200" and what differs'
        )
    table = dict(tables[name])
    like = table.pop("like", None)
    if like is not None and (like not in known or "like" in known[like]):
        raise UsageError(
            f"like = {like!r} in {name}: known are {', '.join(n for n in known if 'like' not in known[n])}"
        )
    base = {} if like is None else known[like] | {"measured": False}
    merged = base | table
    fields = {field.name for field in attrs.fields(Gpu)} - {"name"}
    unknown = sorted(set(merged) - fields)
    lacking = sorted(fields - {"measured"} - set(merged))
    if unknown or lacking:
        what = f"does not know {unknown[0]}" if unknown else f"lacks {lacking[0]}"
        raise UsageError(f"the table of {name} {what}.\n  known   {', '.join(sorted(fields))}")
    for field in fields - {"measured", "source"}:
        value = merged[field]
        if type(value) not in (int, float) or not (math.isfinite(value) and value >= 0):
            raise UsageError(f"the table of {name}: {field} must be a number from 0, not {value!r}")
    for field in ("memory_mib", "multiprocessors", "bandwidth", "product_flops", "attention_flops", "half_tile"):
        if not merged[field]:
            raise UsageError(f"the table of {name}: {field} must be above 0")
    return Gpu(name=name, **merged)


def read_host() -> Host:
    return cattrs.structure(_tables()["host"], Host)


def read_link(text: str, flag: str) -> Link:
    """A name of hardware.toml, or numbers: "450GB/s", "450GB/s,3us"."""
    known = _tables()["link"]
    if text in known:
        return Link(text, **known[text])
    numbers = re.fullmatch(r"(\d+(?:\.\d+)?)GB/s(?:,(\d+(?:\.\d+)?)us)?", text)
    if numbers is None or not float(numbers[1]):
        raise UsageError(
            f"{flag} {text} is no link.\n  known   {', '.join(known)}\n"
            "  instead numbers: GB a second of one GPU in one direction and microseconds, as in 450GB/s,3us"
        )
    return Link(text, float(numbers[1]) * 1e9, float(numbers[2] or 3) * 1e-6)


def _tables() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("hardware.toml").read_text("utf-8"))


def _own_file(path: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}\n  where   --hardware") from None
    gpus = given.get("gpu")
    if list(given) != ["gpu"] or not isinstance(gpus, dict) or len(gpus) != 1 or type(*gpus.values()) is not dict:
        raise UsageError(f"{path} must hold one table, [gpu.NAME]\n  where   --hardware")
    return gpus
