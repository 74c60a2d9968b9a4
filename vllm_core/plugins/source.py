"""Look at a module's source without importing it or any of its parents."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["locate", "read_hook_api"]


def locate(module: str) -> str:
    """The file a dotted module would be loaded from, or "" if there is none."""
    *parents, _ = parts = module.split(".")
    path: list[str] | None = None
    for i in range(len(parents)):
        path = _folders(".".join(parts[: i + 1]), path)
        if not path:
            return ""
    try:
        spec = _find(module, path)
    except KeyError:
        return ""  # a namespace package
    return spec.origin if spec and spec.has_location and spec.origin else ""


def _folders(package: str, path: list[str] | None) -> list[str]:
    """Where a package's modules lie."""
    try:
        spec = _find(package, path)
        return list(spec.submodule_search_locations or ()) if spec else []
    except KeyError:
        # A namespace package below another package wants that one in sys.modules, so look by hand.
        folders = [os.path.join(entry, package.rpartition(".")[2]) for entry in path or ()]
        return [folder for folder in folders if os.path.isdir(folder)]


def _find(name: str, path: list[str] | None) -> Any:
    # Each finder takes the parent's folders as an argument, so no parent needs to be imported.
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec(name, path) if find_spec else None
        if spec is not None:
            return spec
    return None


def read_hook_api(file: str) -> int | None:
    """The literal ``HOOK_API`` at the top level of a source file; None if there is none, or it is no literal."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        if any(isinstance(t, ast.Name) and t.id == "HOOK_API" for t in targets):
            literal = value.value if isinstance(value, ast.Constant) else None
            return literal if type(literal) is int else None
    return None
