"""The culprit installed in a folder of its own, and where to tell it what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Culprit:
    """``order`` is what it does, and where."""

    def __init__(self, site: Path, folder: Path) -> None:
        self.order = folder / "order"
        self.order.write_text("")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CORE_", "PYTHON"))}
        homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
        self.environ = {
            **inherited,
            **homes,
            "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT))),
            "CULPRIT": str(self.order),
            "VLLM_CORE_PLUGINS_ALLOW": "culprit,owl",  # nobody else is to be chosen
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.folder = folder

    def run(self, script: str, *words: object, seconds: float = 120, **environ: str) -> SimpleNamespace:
        """A script beside this file -> code, out (JSON of its last line, if there is one), err."""
        done = subprocess.run(
            [sys.executable, str(HERE / script), *map(str, words)],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        lines = done.stdout.splitlines()
        return SimpleNamespace(code=done.returncode, out=json.loads(lines[-1]) if lines else None, err=done.stderr)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, source in (("culprit", HERE / "culprit"), ("owl", ROOT / "tests" / "third_party" / "packages" / "owl")):
        module = f"vllm_plugin_{name}"
        folder.joinpath(module).symlink_to(source / module)
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-plugin-{name}\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[vllm_core.plugins]\n{name} = {module}\n")
    return folder


@pytest.fixture(scope="session")
def culprit(site, tmp_path_factory):
    return Culprit(site, tmp_path_factory.mktemp("culprit"))
