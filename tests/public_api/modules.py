"""Source files of the core as syntax trees: what a module defines, and where what it passes on is defined.

Nothing is imported, so that reading the whole takes a second, and says the same under every version of Python.
"""

from __future__ import annotations

import ast
from functools import cached_property
from pathlib import Path

import attrs

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@attrs.frozen(slots=False)
class Module:
    name: str  # dotted
    file: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.file.read_text())

    @cached_property
    def defined(self) -> dict[str, Definition]:
        """Top level: name -> where it is defined."""
        found: dict[str, Definition] = {}
        for node in _top(self.tree.body):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
            elif isinstance(node, ast.Assign):
                found.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        return found

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """Name -> the module it comes from, and its name there; those of ``if TYPE_CHECKING`` as well."""
        return {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in _top(self.tree.body)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    @property
    def public(self) -> list[str]:
        """``__all__``, or without it what is defined here under a name that does not begin with "_"."""
        said = self.defined.get("__all__")
        if said is not None and said.value is not None:
            return list(ast.literal_eval(said.value))
        return [name for name in self.defined if not name.startswith("_")]


class Tree:
    """The modules of a package."""

    def __init__(self, package: Path) -> None:
        self._root = package
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """None for those of other packages."""
        if name not in self._modules:
            place = self._root.parent.joinpath(*name.split("."))
            files = [place / "__init__.py", place.with_suffix(".py")]
            file = next((file for file in files if file.is_file() and self._root in file.parents), None)
            self._modules[name] = Module(name, file) if file else None
        return self._modules[name]

    def below(self, name: str) -> list[str]:
        """A module, and all below it but those whose names begin with "_"."""
        module = self.module(name)
        assert module is not None, name
        if module.file.name != "__init__.py":
            return [name]
        rest = [file for file in module.file.parent.rglob("*.py") if not file.stem.startswith("_")]
        return [name, *sorted(".".join(file.relative_to(self._root.parent).with_suffix("").parts) for file in rest)]

    def find(self, module: str, name: str) -> tuple[Module, Definition] | None:
        """Where ``module.name`` is defined; None if that is outside of the package."""
        found = self.module(module)
        if found is None:
            return None
        if name in found.defined:
            return found, found.defined[name]
        if name in found.imported:
            return self.find(*found.imported[name])
        return None


def _top(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of the top level, those below ``if`` and ``try`` as well."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            found += _top([*node.body, *node.orelse])
        else:
            found.append(node)
    return found
