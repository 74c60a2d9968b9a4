"""The kernels do what they should, interpreted on CPU tensors. bfloat16 and float8 are beyond Triton's interpreter."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
SCRIPT = Path(__file__).with_name("interpreted.py")


@pytest.mark.parametrize(
    "cases",
    [
        ["plain", "window", "batch invariant"],
        ["soft cap", "window, sinks and soft cap"],
        ["no causality", "heads of 80 and 48 elements", "three heads a KV head"],
    ],
    ids=", ".join,
)
def test_interpreted_it_agrees_with_float64(cases):
    done = subprocess.run([sys.executable, SCRIPT, *cases], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"agrees: {name}" for name in cases]
