"""A tiny real model, and a plugin with logits processors beside it."""

import sys
from pathlib import Path

import pytest

from tests.loading.checkpoints import tiny_model, write
from tests.plugins.dummies import Site

SOURCES = Path(__file__).with_name("site")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nobody's settings but the test's."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


@pytest.fixture(scope="session")
def model():
    return tiny_model(initializer_range=0.12)


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny") / "whole", model))


@pytest.fixture
def extras(tmp_path, monkeypatch):
    """The plugin ``sampling_extras`` is installed."""
    site = tmp_path / "site"
    site.mkdir()
    for path in (SOURCES, site):
        monkeypatch.syspath_prepend(str(path))
    Site(site).install("extras", None, module="sampling_extras")
    yield
    for name in [name for name in sys.modules if name.startswith("sampling_extras")]:
        del sys.modules[name]
