"""What a result holds beside its figures: who ran it, with what, on what."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_core import __version__
from vllm_core.cli.errors import UsageError

__all__ = ["add_output_flag", "environment", "kept", "record", "write"]


def add_output_flag(parser: Any) -> None:
    """``parser``: or a group of one."""
    parser.add_argument("--output-json", metavar="FILE", help="write all figures, settings and the lock to this file")


def kept(args: argparse.Namespace) -> None:
    """Refuse an ``--output-json`` that cannot be written, before anything is measured."""
    if args.output_json is not None:
        file = Path(args.output_json)
        if file.is_dir() or not file.parent.is_dir():
            why = "is a folder" if file.is_dir() else f"cannot be written: there is no folder {file.parent}"
            raise UsageError(f"{file} {why}\n  where   --output-json")


def write(args: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """To the file of ``--output-json``, if there is one."""
    if args.output_json is not None:
        text = json.dumps(result, indent=2, default=str)
        Path(args.output_json).write_text(text + "\n", encoding="utf-8")
        print(f"written to {args.output_json}", file=sys.stderr)


def environment() -> dict[str, Any]:
    """Versions and hardware; needs no engine."""
    from importlib.metadata import version

    from vllm_core.runner import host

    hardware = {
        "cpu": _cpu(), "cores": host.cores(), "usable_cores": host.usable_cores(),
        "memory_bytes": host.total_memory(), "memory_limit_bytes": host.memory_limit(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }  # fmt: skip
    versions = {"vllm_core": __version__, "python": platform.python_version(), "torch": version("torch")}
    return {"versions": versions, "hardware": hardware, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def record(llm: Any) -> dict[str, Any]:
    """Of an engine: settings, the lock with its digest, hardware, memory at its peak so far, the start's seconds."""
    from vllm_core.cli.bench.peers.measure import peak_memory
    from vllm_core.plugins.digest import canonical
    from vllm_core.runner.device_memory import device_memory

    built = llm.built
    found = environment()
    found["hardware"]["devices"] = _devices(built)
    found["versions"]["threads"] = _threads()
    lock = {"digest": built.lock.digest, **canonical(built.lock)}
    settings = {**lock["settings"], "max_model_len": built.max_model_len}
    settings |= {"max_num_batched_tokens": built.max_step_tokens, "dtype": dtype_of(built)}
    return {
        "engine": "vllm-core",
        "model": llm.settings.model,
        "settings": settings,
        "lock": lock,
        "peak_memory_bytes": peak_memory(),
        "peak_device_memory_bytes": _device_memory(),
        "memory_bytes": dict(built.capacity.memory),
        "device_memory_bytes": device_memory(),
        "start_seconds": dict(llm.timings),
        **found,
    }


def dtype_of(built: Any) -> str:
    """The number format that the engine computes in: ``"bfloat16"``."""
    queries = [decision.query for decision in built.decisions if decision.hook == "attention_backend"]
    return next((q.dtype for q in queries if getattr(q, "dtype", "")), built.settings.dtype)


def device_of(built: Any) -> str:
    """``"cpu"``, ``"cuda"``."""
    return next((device["type"] for device in _devices(built)), "cpu")


def _devices(built: Any) -> list[dict[str, Any]]:
    chosen = [decision for decision in built.decisions if decision.hook == "platform"]
    facts = [decision.load()().facts() for decision in chosen]
    return [{"type": f.type, "name": f.name, "count": f.count, "memory_bytes": f.memory} for f in facts]


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _device_memory() -> int:
    """Bytes that torch had of the device at most; 0 without one."""
    import torch

    return torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else 0


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
