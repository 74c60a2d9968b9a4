"""The packages of this repository: the core, kernels/, and every plugins/<kind>/<name>/ with a pyproject.toml.

``python -m tests.packages`` prints what their tests need from elsewhere, for pip.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@attrs.frozen(slots=False)
class Package:
    """One distribution; ``label`` is its place without ``plugins/``, as in "models/owl"."""

    label: str
    folder: Path

    def __str__(self) -> str:
        return self.label

    @property
    def place(self) -> str:
        """Its folder, relative to the repository."""
        return f"plugins/{self.label}" if "/" in self.label else self.label

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads(self.folder.joinpath("pyproject.toml").read_text())

    @property
    def distribution(self) -> str:
        return canonicalize_name(self.pyproject["project"]["name"])

    @property
    def requirements(self) -> list[Requirement]:
        """What it says that it needs; extras left out."""
        return [Requirement(text) for text in self.pyproject["project"].get("dependencies", ())]

    @property
    def test_requirements(self) -> list[Requirement]:
        """What only its own tests need: ``[dependency-groups] test = [...]``."""
        return [Requirement(text) for text in self.pyproject.get("dependency-groups", {}).get("test", ())]

    @property
    def modules(self) -> list[str]:
        """Folders that its wheel must hold."""
        return self.pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    @property
    def entry_points(self) -> dict[str, str]:
        """Plugin's name -> its module."""
        return self.pyproject["project"].get("entry-points", {}).get("vllm_core.plugins", {})


def core(root: Path = ROOT) -> Package:
    return Package("core", root)


def plugin_packages(root: Path = ROOT) -> list[Package]:
    files = sorted(root.glob("plugins/*/*/pyproject.toml"))
    plugins = [Package("/".join(file.parent.parts[-2:]), file.parent) for file in files]
    return plugins + [Package(file.parent.name, file.parent) for file in root.glob("kernels/pyproject.toml")]


def needed(requirements: Iterable[Requirement], known: Iterable[Package]) -> list[Package]:
    """Those of ``known`` that are required, and what these require in turn."""
    by_name = {package.distribution: package for package in known}
    found: dict[str, Package] = {}
    asked = list(requirements)
    while asked:
        name = canonicalize_name(asked.pop().name)
        if name in by_name and name not in found:
            found[name] = by_name[name]
            asked += by_name[name].requirements
    return list(found.values())


def wanted_by_tests() -> list[str]:
    """What the test groups of all packages name, but for the packages themselves."""
    ours = plugin_packages()
    names = {package.distribution for package in ours}
    asked = {
        str(one) for package in ours for one in package.test_requirements if canonicalize_name(one.name) not in names
    }
    return sorted(asked)


if __name__ == "__main__":
    print("\n".join(wanted_by_tests()))
