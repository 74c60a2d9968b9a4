"""Every test here has its own configuration, cache and data folders, and no vllm.toml around."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for dummies.py


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home: returns the folder that is also the working directory."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for name in ("ALLOW", "BLOCK", "REQUIRE"):
        monkeypatch.delenv(f"VLLM_CORE_PLUGINS_{name}", raising=False)
    return work


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path to install dummy distributions into."""
    from dummies import Site

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return Site(folder)
