"""Packages as ``vllm-core plugins new`` makes them, built by their own backend and installed by pip."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.packages import ROOT
from tests.template.kinds import EXAMPLES
from vllm_core.cli import main

_BUILD = """
import os, sys
from hatchling.build import build_wheel
for folder in sys.argv[2:]:
    os.chdir(folder)
    build_wheel(sys.argv[1])
"""


class Workshop:
    """Renders, installs and runs, each once a session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folders = dict(EXAMPLES)  # name -> package that is there already
        self.render, self.site = cache(self._render), cache(self._site)

    @staticmethod
    def name(kind: str) -> str:
        """Of the plugin that is made of a kind; nobody else's."""
        return kind if kind in EXAMPLES else f"trial-{kind}"

    def _render(self, kind: str) -> Path:
        """The package: rendered, or copied where the repository has it as an example."""
        if kind in self.folders:
            return self.folders[kind]
        into = self.folder / "packages" / kind
        assert main(["plugins", "new", self.name(kind), "--kind", kind, "--into", str(into)]) == 0
        return into

    def _site(self, *kinds: str) -> Path:
        """Where these packages are installed, side by side: from their wheels, without network."""
        wheels, site = self.folder / f"wheels-{'-'.join(kinds)[:80]}", self.folder / f"site-{'-'.join(kinds)[:80]}"
        wheels.mkdir()
        folders = [str(self.render(kind)) for kind in kinds]
        self._check([sys.executable, "-c", _BUILD, str(wheels), *folders])
        options = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
        self._check([*pip, *map(str, sorted(wheels.iterdir()))])
        return site

    def run(self, line: list[str], site: Path, cwd: Path, seconds: float = 600) -> SimpleNamespace:
        """A program that sees ``site`` -> code, out, err."""
        private = ("VLLM_CORE_", "PYTHON", "PYTEST_")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(private)}
        environ |= {f"XDG_{name}_HOME": str(self.folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
        environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environ["PYTHONPATH"] = os.pathsep.join((str(site), str(ROOT)))
        environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", "")))
        done = subprocess.run(line, cwd=cwd, env=environ, capture_output=True, text=True, timeout=seconds)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    @staticmethod
    def _check(line: list[str]) -> None:
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}:\n{done.stderr}"


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("template"))
