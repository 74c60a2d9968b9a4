"""The tests of products.py, interpreted where there is no GPU, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def test_products_are_right_and_do_not_depend_on_the_batch():
    pytest.importorskip("triton")
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).with_name("products.py")),
    ]
    done = subprocess.run(command, env={**os.environ, **interpreted}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout or "[100%]" in done.stdout
