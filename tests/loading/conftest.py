"""A tiny model and its checkpoint, made once; copies of it to damage."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.loading.checkpoints import tiny_model, write


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nobody's settings but the test's."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


@pytest.fixture(scope="session")
def model():
    return tiny_model()


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    """The model as transformers saves it. Not to be changed."""
    return write(tmp_path_factory.mktemp("tiny") / "whole", model)


@pytest.fixture
def edited(folder, tmp_path):
    """``edited("config.json", field=value)``: a copy of the folder with other fields; ``...`` removes one."""

    def make(file="config.json", **fields):
        copy = tmp_path / "edited"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        content = {**json.loads((copy / file).read_text()), **fields}
        (copy / file).write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
        return copy

    return make
