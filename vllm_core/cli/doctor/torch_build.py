"""PyTorch, looked at in a child process: one that is broken, or makes a device context, does no harm here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.runner import host

__all__ = ["TorchProbe"]

SECONDS = 120  # a cold disk may need half of it
_CODE = """
import json, vllm_core, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__, "file": torch.__file__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "cuda_usable": cuda, "cuda_devices": torch.cuda.device_count() if cuda else 0,
    "threads": torch.get_num_threads(), "cpu_capability": torch.backends.cpu.get_cpu_capability(),
}))
"""


class TorchProbe:
    """Started at once, read when its answer is needed. ``facts`` is None until ``findings`` has found torch to work."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] | None = None
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )

    def findings(self) -> Iterator[Finding]:
        try:
            out, err = self._child.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            yield Finding(
                "torch", "torch", "fail", f"importing it took more than {SECONDS} s", remedy="see what else runs here"
            )
            return
        try:
            facts = json.loads(out.splitlines()[-1]) if self._child.returncode == 0 else None
        except (IndexError, ValueError):
            facts = None
        if facts is None:
            yield _broken(self._child.returncode, err)
            return
        self.facts = facts
        kind = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['hip']}" if facts["hip"] else "CPU"
        if facts["cuda"]:
            kind += (
                f" build, {facts['cuda_devices']} usable devices"
                if facts["cuda_usable"]
                else " build, no usable device"
            )
        else:
            kind += " build"
        yield Finding("torch", "torch", "ok", f"{facts['version']}, {kind}, {facts['cpu_capability']}", facts=facts)
        yield _threads(facts["threads"])


def _broken(code: int, err: str) -> Finding:
    last = next((line for line in reversed(err.splitlines()) if line.strip()), "it said nothing")
    if code < 0:
        last = f"importing it ends the process with {signal.Signals(-code).name}"
        remedy = "reinstall a build of torch for this processor: pip install --force-reinstall torch"
    elif "No module named 'torch'" in last:
        last, remedy = "it is not installed", "pip install torch"
    else:
        remedy = "pip install --force-reinstall torch"
    return Finding("torch", "torch", "fail", last, remedy=remedy, facts={"exit_code": code, "stderr": err[-2000:]})


def _threads(threads: int) -> Finding:
    usable, asked = host.usable_cores(), os.environ.get("OMP_NUM_THREADS")
    says = f"{threads} for {usable} cores" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    remedy = ""
    if threads > usable:
        remedy = f"export OMP_NUM_THREADS={usable}: more threads than cores wait for each other"
    elif threads < usable and asked:
        remedy = "unset OMP_NUM_THREADS to use all cores"
    return Finding(
        "torch",
        "threads",
        "warn" if remedy else "ok",
        says,
        remedy=remedy,
        facts={"threads": threads, "usable": usable},
    )
