"""What plugins rely on, one line a name: ``{"vllm_core.plugin.Offer": "given class (*, name: str, ...)"}``.

The first word says whose side a name is on, and with it which changes break a plugin:

given         the core has it, plugins use it
implemented   plugins have it, the core uses it: contracts, ops
hook          plugins answer it, with the arguments they want

Fields of records stand in the constructor of their class. What constructors write into ``self``, and docstrings,
are not read: they are the reviewer's.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.public_api.modules import Definition, Module, Tree
from tests.public_api.records import constructor_of_record, is_record, signature
from vllm_core.hookspecs import HOOKS
from vllm_core.hookspecs.reading import read_hook

ROOT = Path(__file__).parents[2] / "vllm_core"
PACKAGES = ("interfaces", "layers", "text")
"""Public with all their modules."""
MODULES = (
    "", "plugin", "commands", "executors", "serving", "simulation", "config.setting", "engine.async_llm", "testing",
    "ops", "ops.noise", "ops.sampler", "weights", "weights.rules", "weights.patterns", "weights.transforms",
    "weights.errors",
)  # fmt: skip
"""Public themselves: what ``__all__`` names, or without it what is defined there."""
GIVEN = {"Plan", "ProposerPlan", "Follower", "ProcessGroup", "BoundAttention", "BoundState", "Progress", "StepLoop"}
"""Protocols that the core implements for plugins; all others are what plugins implement."""


def surface(root: Path = ROOT) -> dict[str, str]:
    """Name -> line, sorted."""
    tree = Tree(root)
    lines: dict[str, str] = {}
    found = {f"{module}.{name}": tree.find(module, name) for module, name in _names(tree)}
    public = {id(one[1]): path for path, one in reversed(found.items()) if one}  # definition -> its first name
    for path, one in found.items():
        if one is None:
            lines[path] = "given constant"  # made by a library
        elif public[id(one[1])] != path:
            lines[path] = f"given is {public[id(one[1])]}"
        else:
            lines.update(_describe(tree, *one, path, public.keys()))
    lines.update(_hooks(tree))
    return dict(sorted(lines.items()))


def _names(tree: Tree) -> Iterator[tuple[str, str]]:
    """Public names with the module they are public in; the shortest ways first."""
    modules = [f"vllm_core.{name}".rstrip(".") for name in MODULES]
    modules += [name for package in PACKAGES for name in tree.below(f"vllm_core.{package}")]
    free = provisional(tree)
    for name in sorted(modules, key=lambda name: (name.count("."), name)):
        module = tree.module(name)
        assert module is not None, name
        for public in module.public:
            if (name, public) not in free and public != "__version__":
                yield name, public


def provisional(tree: Tree) -> set[tuple[str, str]]:
    """Names in ``interfaces`` that belong to provisional hooks alone: contracts with their modules, and queries."""
    named: dict[tuple[str, str], set[bool]] = {}
    for hook, info in HOOKS.items():
        said = read_hook(hook)
        contracts = [tuple(f"vllm_core.{c}".rsplit(".", 1)) for c in said.contracts if c.startswith("interfaces.")]
        for module, name in [*contracts, ("vllm_core.interfaces.queries", said.query)]:
            named.setdefault((module, name), set()).add(info.provisional)
    free = {key for key, hooks in named.items() if hooks == {True}}
    queries = "vllm_core.interfaces.queries"
    for module in {module for module, _ in free if module != queries}:
        if all(hooks == {True} for (where, _), hooks in named.items() if where == module):
            found = tree.module(module)
            assert found is not None
            free |= {(module, name) for name in found.public}
    return free


def _hooks(tree: Tree) -> dict[str, str]:
    lines = {}
    for name, info in HOOKS.items():
        if not info.provisional:
            found = tree.find(info.module, name)
            assert found is not None
            assert isinstance(found[1], ast.FunctionDef)
            lines[f"hook {name}"] = f"hook def {signature(found[1])}{_deprecated(found[1])}"
    return lines


def _deprecated(node: ast.FunctionDef) -> str:
    """What ``hookspec(warn_on_impl=...)`` says."""
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    said = [f"{k.arg}={ast.unparse(k.value)}" for call in calls for k in call.keywords]
    return f" deprecated {', '.join(said)}" if said else ""


def _describe(
    tree: Tree, home: Module, node: Definition, path: str, public: Collection[int]
) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ClassDef):
        yield from _class(tree, home, node, path, public)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        is_op = any(isinstance(d, ast.Name) and d.id == "op" for d in node.decorator_list)
        yield path, f"{'implemented' if is_op else 'given'} {_def(node)} {signature(node)}"
    else:
        annotation = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
        yield path, f"given constant{annotation}"


def _class(
    tree: Tree, home: Module, node: ast.ClassDef, path: str, public: Collection[int]
) -> Iterator[tuple[str, str]]:
    """The class and its members, those of its bases too unless these are public themselves."""
    family = list(_family(tree, home, node))
    bases = [ast.unparse(base) for base in node.bases]
    contract = "Protocol" in bases and node.name not in GIVEN
    role = "implemented" if contract else "given"
    inits = [f for one in family for f in one.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
    if inits:
        made = signature(inits[0], method=True)
    else:
        made = constructor_of_record(family) if any(is_record(one) for one in family) else "()"
    shown = list(dict.fromkeys(_public_bases(tree, home, node, public)))
    of = f"[{', '.join(shown)}]" if shown else ""
    yield path, f"{role} class{of} {made}"
    seen: set[str] = set()
    for one in [one for one in family if one is node or id(one) not in public]:
        for name, line in _members(one, is_enum=any("Enum" in base for base in bases), record=is_record(one)):
            if name not in seen:
                seen.add(name)
                yield f"{path}.{name}", f"{role} {line}"


def _family(tree: Tree, home: Module, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """The class, then its bases as far as they are the core's."""
    yield node
    for base in node.bases:
        found = tree.find(home.name, ast.unparse(base).partition("[")[0])
        if found is not None and isinstance(found[1], ast.ClassDef):
            yield from _family(tree, found[0], found[1])


def _public_bases(tree: Tree, home: Module, node: ast.ClassDef, public: Collection[int]) -> Iterator[str]:
    """As they are written; of a base that is not public its own."""
    for base in node.bases:
        name = ast.unparse(base)
        found = tree.find(home.name, name.partition("[")[0])
        if found is None or id(found[1]) in public or not isinstance(found[1], ast.ClassDef):
            yield name
        else:
            yield from _public_bases(tree, *found, public)


def _members(node: ast.ClassDef, *, is_enum: bool, record: bool) -> Iterator[tuple[str, str]]:
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            if one.name != "__call__" and one.name.startswith(("_", "test_")):
                continue
            marks = [ast.unparse(mark) for mark in one.decorator_list]
            if any(mark.endswith(("property", ".getter")) for mark in marks):
                yield one.name, f"attribute {ast.unparse(one.returns) if one.returns else 'Any'}"
            elif not any(mark.endswith((".setter", ".default", ".validator", "overload")) for mark in marks):
                kind = "".join(f"{m} " for m in marks if m in ("classmethod", "staticmethod"))
                yield one.name, f"{kind}{_def(one)} {signature(one, method='static' not in kind)}"
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            if not one.target.id.startswith("_") and not (record and "ClassVar" not in ast.unparse(one.annotation)):
                yield one.target.id, f"attribute {ast.unparse(one.annotation)}"
        elif isinstance(one, ast.Assign):
            for target in one.targets:
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    yield target.id, f"member {ast.unparse(one.value)}" if is_enum else "attribute"


def _def(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
