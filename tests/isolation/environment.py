"""A fresh virtual environment with wheels of ours and what they declare, and nothing else that is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OFFLINE = ("--quiet", "--no-deps", "--no-index")


def pip(*words: object) -> None:
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(line)}:\n{done.stderr}"


def build_wheel(folder: Path, into: Path) -> Path:
    """Made with the build backend that is installed here."""
    into.mkdir()
    pip("wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", into, folder)
    (wheel,) = into.glob("*.whl")
    return wheel


def declared(requirements: Iterable[Requirement], without: Collection[str] = ()) -> dict[str, Distribution]:
    """What pip would install for them, found among what is installed here; ``without``: distributions left out."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    asked = [(requirement, "it") for requirement in requirements]
    while asked:
        requirement, who = asked.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in without or (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise AssertionError(f"{who} declares {requirement}, which is not installed here") from None
        for needs in map(Requirement, found[name].requires or ()):
            marker = needs.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                asked.append((needs, name))
    return found


@cache
def places(name: str) -> frozenset[Path]:
    """Files and folders at the top level of what a distribution installed."""
    there = distribution(name)
    tops = {file.parts[0] for file in there.files or () if not file.is_absolute()}
    tops = {top for top in tops if top not in ("..", "__pycache__") and not top.endswith(".pth")}
    return frozenset(Path(there.locate_file(top)) for top in tops)


def link(distributions: Iterable[str], folder: Path) -> Path:
    """A folder for ``sys.path`` that shows these installed distributions, and no other."""
    folder.mkdir()
    for place in {place for name in distributions for place in places(name)}:
        folder.joinpath(place.name).symlink_to(place)
    return folder


class Environment:
    """``wheels`` installed by pip, ``libraries`` (of `link`) on the path."""

    def __init__(self, folder: Path, wheels: Iterable[Path], libraries: Path) -> None:
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
        self.binaries = venv / "bin"
        pip("--python", self.binaries / "python", "install", *OFFLINE, *wheels)
        (self.site,) = venv.glob("lib/python3*/site-packages")
        self.site.joinpath("libraries.pth").write_text(f"{libraries}\n")
        self.folder = folder / "work"
        self.folder.mkdir()
        private = ("VLLM_CORE_", "PYTHON", "PYTEST_", "VIRTUAL_ENV")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(private)}
        self.environ |= {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
        self.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def __call__(self, program: str, *words: object, seconds: float = 120, **environ: str) -> SimpleNamespace:
        """Run ``bin/PROGRAM WORDS`` in an empty folder -> code, out, err."""
        done = subprocess.run(
            [str(self.binaries / program), *map(str, words)],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)
