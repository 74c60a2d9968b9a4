"""Signatures as text: of functions, and of the constructors that attrs and msgspec make from fields."""

from __future__ import annotations

import ast
from collections.abc import Sequence

__all__ = ["constructor_of_record", "is_record", "signature"]


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool = False) -> str:
    """``(rows: Tensor, k: int = 1) -> Drafts``; of a method without ``self``."""
    arguments = ast.parse(ast.unparse(node)).body[0].args  # type: ignore[attr-defined]  # a copy
    if method:
        first = arguments.posonlyargs or arguments.args
        del first[0]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


def is_record(node: ast.ClassDef) -> bool:
    """An attrs class, or a msgspec.Struct, or a named tuple."""
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    return any(mark.startswith("attrs.") for mark in marks) or any(
        ast.unparse(base) in ("msgspec.Struct", "NamedTuple") for base in node.bases
    )


def constructor_of_record(family: Sequence[ast.ClassDef]) -> str:
    """Of a class and its bases, the class first: a signature with all fields, those of bases first."""
    positional: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for node in reversed(family):
        words = [k for d in node.decorator_list if isinstance(d, ast.Call) for k in d.keywords] + node.keywords
        whole = any(k.arg == "kw_only" and ast.unparse(k.value) == "True" for k in words)
        for name, text, alone in _fields(node):
            positional.pop(name, None)
            (by_name if whole or alone else positional)[name] = text
    return f"({', '.join([*positional.values(), *(['*', *by_name.values()] if by_name else [])])})"


def _fields(node: ast.ClassDef) -> list[tuple[str, str, bool]]:
    """(name, ``name: type = default``, whether only by name)."""
    made = {  # by a method with this decorator
        mark.value.id
        for one in node.body
        if isinstance(one, ast.FunctionDef)
        for mark in one.decorator_list
        if isinstance(mark, ast.Attribute) and mark.attr == "default" and isinstance(mark.value, ast.Name)
    }
    found = []
    for one in node.body:
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        name, annotation = one.target.id, ast.unparse(one.annotation)
        words = {k.arg: ast.unparse(k.value) for k in one.value.keywords} if isinstance(one.value, ast.Call) else {}
        if annotation.startswith("ClassVar") or words.get("init") == "False":
            continue
        default = _default(one.value) or ("..." if name in made else "")
        # attrs strips the underscore of private fields
        text = f"{name.lstrip('_')}: {annotation}" + (f" = {default}" if default else "")
        found.append((name, text, words.get("kw_only") == "True"))
    return found


def _default(value: ast.expr | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, ast.Call) or not ast.unparse(value.func).endswith(("field", "setting")):
        return ast.unparse(value)
    words = {k.arg: ast.unparse(k.value) for k in value.keywords}
    if value.args:  # setting(1, ...), or a function of the module's own
        return ast.unparse(value.args[0])
    factory = words.get("factory") or words.get("default_factory")
    return words.get("default", f"{factory}()" if factory else "")
