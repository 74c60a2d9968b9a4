"""Checks of what a package imports and installs: declared, and not on top of others."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from vllm_core.cli.doctor.finding import Finding
from vllm_core.plugins.discovery import canonical

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject

__all__ = ["imported", "imports"]

COMMON = ("tests", "test", "docs", "examples", "scripts", "src", "conformance")
"""Top-level names that several packages would install over each other."""


def imports(subject: Subject) -> Iterator[Finding]:
    yield from _declared(subject)
    yield from _on_top(subject)


def _declared(subject: Subject) -> Iterator[Finding]:
    own = {plugin.module.partition(".")[0] for plugin in subject.plugins} | {p.name for p in subject.folders}
    wanted = {canonical(requirement.name) for requirement in subject.requires}
    absent = {name for name in wanted if not _installed(name)}
    with_core = _required("vllm-core") if "vllm-core" in wanted else frozenset()
    found: dict[str, list[str]] = {}  # top-level module -> where
    for file in subject.sources:
        for name in imported(file) - own - sys.stdlib_module_names - {"__future__"}:
            found.setdefault(name, []).append(file.name)
    missing, through, unseen = [], [], []
    for name, files in sorted(found.items()):
        owners = {canonical(owner) for owner in packages_distributions().get(name, ())}
        if (owners or {canonical(name)}) & wanted:
            continue
        if owners & with_core:
            through.append(name)
        elif not owners and absent:
            unseen.append(name)
        else:
            whose = f"of {' or '.join(sorted(owners))}, " if owners else ""
            missing.append(f"{name} ({whose}in {', '.join(sorted(set(files)))})")
    if not subject.sources:
        yield Finding("package", "dependencies", "warn", "no Python source of it was found")
    elif missing:
        remedy = "dependencies in pyproject.toml, or an extra of [project.optional-dependencies]"
        yield Finding("package", "dependencies", "fail", f"not declared: {'; '.join(missing)}", remedy=remedy)
    else:
        says = f"all {len(found)} imports beside Python's own are declared"
        more = f", {', '.join(through)} by vllm-core" if through else ""
        if unseen:
            more += (
                f"; {', '.join(unseen)} is taken to be in {' or '.join(sorted(absent))}, which is not installed here"
            )
        yield Finding("package", "dependencies", "ok", f"{says}{more} ({len(subject.sources)} files read)")
    if "vllm-core" not in wanted:
        remedy = 'dependencies = ["vllm-core>=0.1,<0.2"]: a core that it was not made for is refused before it starts'
        yield Finding("package", "vllm-core", "warn", "it does not say which versions it works with", remedy=remedy)


def _on_top(subject: Subject) -> Iterator[Finding]:
    """Modules that would be installed over those of others, or hide them."""
    own = set(_tops(subject))
    hidden = sorted(own & (sys.stdlib_module_names | set(COMMON)))
    shared = {
        name: owners
        for name in sorted(own)
        if (owners := {canonical(o) for o in packages_distributions().get(name, ())} - {subject.name})
    }
    remedy = "install one package with a name of its own, such as vllm_plugin_NAME"
    if hidden:
        yield Finding("package", "modules", "fail", f"it installs {', '.join(hidden)} at the top level", remedy=remedy)
    elif shared:
        whose = "; ".join(f"{name} is also in {', '.join(sorted(owners))}" for name, owners in shared.items())
        yield Finding("package", "modules", "fail", whose, remedy=remedy)
    else:
        yield Finding("package", "modules", "ok", ", ".join(sorted(own)) or "installed from a checkout")


def _tops(subject: Subject) -> Iterable[str]:
    """Names that its files make importable."""
    for file in subject.installed.files or ():
        top, *rest = file.parts
        if rest and file.suffix == ".py":
            yield top
        elif not rest and file.suffix == ".py" and not top.startswith("_"):  # _editable_impl_x.py is pip's
            yield file.stem


def _installed(distribution: str) -> bool:
    try:
        return bool(requires(distribution) or True)
    except PackageNotFoundError:
        return False


@cache
def _required(distribution: str) -> frozenset[str]:
    """What it requires whatever extras are asked for."""
    try:
        lines = map(Requirement, requires(distribution) or ())
    except PackageNotFoundError:
        return frozenset()
    return frozenset(canonical(r.name) for r in lines if r.marker is None or r.marker.evaluate({"extra": ""}))


def imported(file: Path) -> set[str]:
    """Top-level modules that a file imports, in functions too; ``if TYPE_CHECKING`` is left out."""
    found: set[str] = set()

    def visit(nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                if node.level == 0 and node.module:
                    found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            else:
                visit(ast.iter_child_nodes(node))

    visit(ast.parse(file.read_bytes()).body)
    return found
