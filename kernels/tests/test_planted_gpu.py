"""compute-sanitizer finds what is wrong with a kernel that is launched as this package launches its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vllm_kernels.compiler import options_of
from vllm_kernels.nvrtc import compile_file

PLANTED = Path(__file__).parent / "planted"
OPTIONS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
TOOL = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")


def sanitized(tool: str, name: str) -> tuple[int, str]:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if TOOL is None:
        pytest.skip("needs compute-sanitizer, which comes with the CUDA toolkit")
    # Without torch's pools: behind the end of a tensor would lie another one.
    done = subprocess.run(
        [TOOL, "--tool", tool, *OPTIONS[tool], "--error-exitcode", "9", sys.executable, PLANTED / "launch.py", name],
        env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.gpu
def test_a_write_behind_the_end_is_reported_with_its_kernel():
    code, said = sanitized("memcheck", "overrun")
    assert code
    assert "Invalid __global__ write of size 4 bytes" in said
    assert "overrun" in said


@pytest.mark.gpu
def test_a_missing_barrier_is_reported_with_its_kernel():
    code, said = sanitized("racecheck", "race")
    assert code == 9
    assert "hazard" in said
    assert "race" in said


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_nothing_is_reported_of_a_right_kernel(tool):
    code, said = sanitized(tool, "right")
    assert code == 0, said


@pytest.mark.parametrize("arch", ["80", "90a"])
def test_the_planted_kernels_compile(nvrtc, arch):
    assert compile_file(str(PLANTED), "wrong.cu", [f"-arch=sm_{arch}", "-lineinfo", *options_of(None)])
