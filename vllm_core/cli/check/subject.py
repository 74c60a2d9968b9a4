"""What is checked: an installed distribution, its plugins, and where its sources lie."""

from __future__ import annotations

import tomllib
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from packaging.requirements import Requirement

from vllm_core.plugins.discovery import canonical
from vllm_core.plugins.errors import PluginError, did_you_mean
from vllm_core.plugins.records import CORE
from vllm_core.testing.documented import checkout

if TYPE_CHECKING:
    from vllm_core.plugins.catalog import Catalog
    from vllm_core.plugins.records import PluginStatus

__all__ = ["SHIPPED", "Subject", "find_subject"]

SHIPPED = "conformance"
"""The module or folder of tests within a plugin's package, which its wheel installs."""


@attrs.frozen(kw_only=True, slots=False)
class Subject:
    """``plugins``: a row for each of its entry points, usually one."""

    name: str
    version: str
    installed: Distribution
    plugins: tuple[PluginStatus, ...]
    catalog: Catalog

    @cached_property
    def checkout(self) -> Path | None:
        return checkout(self.installed)

    @cached_property
    def requires(self) -> list[Requirement]:
        """What it declares, extras too. Of a checkout what its pyproject.toml says now: the metadata may be older."""
        lines = list(self.installed.requires or ())
        if self.checkout is not None and (file := self.checkout / "pyproject.toml").is_file():
            project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
            lines += project.get("dependencies", ())
            lines += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
        return list(map(Requirement, lines))

    @cached_property
    def folders(self) -> list[Path]:
        """Of its plugins' packages."""
        files = [Path(plugin.file) for plugin in self.plugins if plugin.file]
        return sorted({file.parent for file in files if file.name == "__init__.py"})

    @cached_property
    def sources(self) -> list[Path]:
        """Its Python files, less tests that it ships."""
        files = {Path(plugin.file) for plugin in self.plugins if plugin.file}
        for folder in self.folders:
            tests = folder / SHIPPED
            files |= {p for p in folder.rglob("*.py") if tests not in p.parents and p != tests.with_suffix(".py")}
        return sorted(files)

    @property
    def label(self) -> str:
        return f"{self.name} {self.version}"


def find_subject(catalog: Catalog, word: str) -> Subject:
    """By the name of a distribution, or of a plugin."""
    rows = [p for p in catalog.plugins if word == p.name or canonical(word) == p.distribution]
    if rows and rows[0].name == CORE:
        raise PluginError(
            "vllm-core is no plugin.", instead="vllm-core plugins check DIST takes one of vllm-core plugins list"
        )
    name = rows[0].distribution if rows else canonical(word)
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        known = [known for p in catalog.plugins for known in (p.distribution, p.name)]
        raise PluginError(
            f'no distribution or plugin "{word}" is installed{did_you_mean(word, known) or "."}',
            instead="pip install it first: what is checked is what users get",
        ) from None
    if not rows:
        raise PluginError(
            f"{name} {installed.version} is installed, and is no plugin.",
            why="it has no entry point in the group vllm_core.plugins",
            instead='[project.entry-points."vllm_core.plugins"] in pyproject.toml: NAME = "its_module"',
        )
    mine = tuple(p for p in catalog.plugins if p.distribution == name)
    return Subject(name=name, version=installed.version, installed=installed, plugins=mine, catalog=catalog)
