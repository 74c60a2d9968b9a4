"""Packages of strangers, built and installed by pip into a folder of their own, and the real command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PACKAGES = Path(__file__).with_name("packages")
collect_ignore = ["packages"]  # their own tests run where they are installed: tests/template
ROOT = Path(__file__).parents[2]  # of the checkout that is tested, wherever another one is installed


@pytest.fixture(scope="session")
def pip_install(tmp_path_factory):
    """``pip_install("owl", ...)`` -> folder with these packages, as ``pip install --target`` leaves it.

    Names are of folders in packages/; a path is taken as it is.
    """

    def install(*names):
        target = tmp_path_factory.mktemp("site")
        # Without network, and without what they depend on: vllm-core is here already.
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
        line = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
        done = subprocess.run(
            [*line, *(str(PACKAGES / name) for name in names)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return target

    return install


@pytest.fixture(scope="session")
def installed(pip_install):
    """The packages that work, side by side."""
    return pip_install("owl", "parrot")


class Shell:
    """A working directory with nobody's settings but the test's, and ``site`` on the path."""

    def __init__(self, folder: Path, site: Path, cache: Path) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CORE_", "PYTHON"))}
        homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA")}
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        path = f"{site}{os.pathsep}{ROOT}"
        self.environ = {**inherited, **homes, **offline, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache)}

    def __call__(self, *words, **environ):
        """``vllm-core WORDS`` as a person runs it -> code, out, err."""
        return self.python("-m", "vllm_core", *words, **environ)

    def python(self, *words, **environ):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    def report(self, script, *words):
        """What a script prints as JSON on its last line."""
        done = self.python("-c", script, *words)
        assert done.code == 0, done.err
        return json.loads(done.out.splitlines()[-1])

    def toml(self, text):
        self.folder.joinpath("vllm.toml").write_text(text)


@pytest.fixture(scope="session")
def probed(tmp_path_factory):
    """One cache of probing for the whole session, as a person has one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shell(tmp_path, installed, probed):
    return Shell(tmp_path, installed, probed)


@pytest.fixture
def shell_with(tmp_path, probed):
    """``shell_with(site)``: a shell with another folder of packages."""
    return lambda site: Shell(tmp_path, site, probed)


@pytest.fixture(scope="session")
def owl_folder(tmp_path_factory):
    """A checkpoint of a tiny Owl with random weights and a tokenizer."""
    from tests.third_party.owl_oracle import save_owl

    return save_owl(tmp_path_factory.mktemp("tiny-owl"))
