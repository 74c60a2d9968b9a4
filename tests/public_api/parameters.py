"""Two signatures of one name: what of the difference breaks those who call it, or those who implement it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from itertools import zip_longest

import attrs

__all__ = ["Ancestors", "compare", "wider"]

Found = Iterator[tuple[bool, str]]  # (whether it breaks plugins, what changed)
Ancestors = Mapping[str, Collection[str]]  # of classes, by their names without modules


@attrs.frozen
class Parameter:
    name: str
    kind: str  # "positional", "by position", "by name", "*", "**"
    annotation: str
    default: str  # "": it must be given


@attrs.frozen
class Signature:
    parameters: dict[str, Parameter]
    returns: str
    deprecated: str = ""

    @classmethod
    def read(cls, text: str) -> Signature:
        """``(a: int, *, b: str = '') -> None``, for hooks with `` deprecated ...`` behind it."""
        text, _, deprecated = text.partition(" deprecated ")
        node = ast.parse(f"def f{text}: ...").body[0]
        assert isinstance(node, ast.FunctionDef)
        a = node.args
        some = [*[(one, "by position") for one in a.posonlyargs], *[(one, "positional") for one in a.args]]
        defaults = [None] * (len(some) - len(a.defaults)) + list(a.defaults)
        rows = [(*one, default) for one, default in zip(some, defaults, strict=True)]
        rows += [(one, kind, None) for one, kind in ((a.vararg, "*"), (a.kwarg, "**")) if one is not None]
        rows += [(one, "by name", default) for one, default in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
        found = [Parameter(one.arg, kind, _text(one.annotation), _text(default)) for one, kind, default in rows]
        return cls({one.name: one for one in found}, _text(node.returns), deprecated)


def compare(before: str, after: str, role: str, ancestors: Ancestors) -> Found:
    """``role``: whose side the function is on, see `reading`."""
    was, now = Signature.read(before), Signature.read(after)
    if role == "implemented":
        yield from _implemented(was, now, ancestors)
    elif role == "hook":
        yield from _hook(was, now, ancestors)
    else:
        yield from _given(was, now, ancestors)
    if now.deprecated != was.deprecated:
        yield False, f"deprecated: {now.deprecated or 'no more'}"


def _given(was: Signature, now: Signature, ancestors: Ancestors) -> Found:
    """Plugins call it."""
    order = [[p.name for p in s.parameters.values() if p.kind in ("positional", "by position")] for s in (was, now)]
    for name, old in was.parameters.items():
        new = now.parameters.get(name)
        if new is None:
            yield True, f'has no parameter "{name}" any more{_renamed(old, was, now)}'
            continue
        if old.kind != new.kind and (old.kind, new.kind) not in (
            ("by name", "positional"),
            ("by position", "positional"),
        ):
            yield True, f'parameter "{name}" was {_kind(old)}, is {_kind(new)}'
        if old.default and not new.default:
            yield True, f'parameter "{name}" must be given now'
        elif old.default != new.default:
            yield (
                False,
                f'parameter "{name}" is {new.default} where it is left out'
                + (f", was {old.default}" if old.default else ""),
            )
        if old.annotation != new.annotation:
            yield (
                not wider(old.annotation, new.annotation, ancestors),
                _type(f'parameter "{name}"', old.annotation, new.annotation),
            )
    for name, new in now.parameters.items():
        if name not in was.parameters:
            needed = not new.default and not new.kind.startswith("*")
            yield needed, f'parameter "{name}" is new' + (", and must be given" if needed else "")
    kept = [name for name in order[1] if name in was.parameters and was.parameters[name].kind != "by name"]
    if order[1][: len(kept)] != kept or kept != [name for name in order[0] if name in kept]:
        yield True, f"takes {', '.join(order[1])} by position, and took {', '.join(order[0])}"
    if was.returns != now.returns:
        yield not wider(now.returns, was.returns, ancestors), _type("the result", was.returns, now.returns)


def _implemented(was: Signature, now: Signature, ancestors: Ancestors) -> Found:
    """The core calls what plugins have."""
    for old, new in zip_longest(was.parameters.values(), now.parameters.values()):
        if old is None:
            yield True, f'parameter "{new.name}" is new, and plugins that implement it do not take it'
        elif new is None:
            yield True, f'parameter "{old.name}" is gone, and plugins that implement it want it'
        elif (old.name, old.kind) != (new.name, new.kind):
            yield True, f'parameter "{new.name}", {_kind(new)}, stands where "{old.name}", {_kind(old)}, was'
            return
        elif (old.annotation, old.default) != (new.annotation, new.default):
            harmless = wider(new.annotation, old.annotation, ancestors) and (
                old.default == new.default or not new.default
            )
            was_, now_ = (f"{p.annotation}{f' = {p.default}' if p.default else ''}" for p in (old, new))
            yield not harmless, _type(f'parameter "{old.name}"', was_, now_)
    if was.returns != now.returns:
        yield not wider(was.returns, now.returns, ancestors), _type("the result", was.returns, now.returns)


def _hook(was: Signature, now: Signature, ancestors: Ancestors) -> Found:
    """Plugins answer it, and are given those arguments that they declare."""
    for name, old in was.parameters.items():
        new = now.parameters.get(name)
        if new is None:
            yield True, f'has no argument "{name}" any more'
        elif old.annotation != new.annotation:
            yield True, _type(f'argument "{name}"', old.annotation, new.annotation)
    for name in now.parameters.keys() - was.parameters.keys():
        yield False, f'argument "{name}" is new: plugins that do not declare it are asked without it'
    if was.returns != now.returns:
        yield not wider(was.returns, now.returns, ancestors), _type("the answer", was.returns, now.returns)


def wider(before: str, after: str, ancestors: Ancestors) -> bool:
    """Whether everything of the one type is of the other: more members of a union, or classes that they extend."""
    if before == after or after in ("Any", ""):
        return True
    allowed = _union(after)
    return all(one in allowed or allowed.intersection(ancestors.get(one, ())) for one in _union(before))


def _union(text: str) -> set[str]:
    def parts(node: ast.expr) -> set[str]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return parts(node.left) | parts(node.right)
        return {ast.unparse(node)}

    return parts(ast.parse(text, mode="eval").body) if text else {"Any"}


def _renamed(gone: Parameter, was: Signature, now: Signature) -> str:
    """The new name of one that is gone, where one of the same kind and type came for it."""
    like = [p.name for p in now.parameters.values() if p.name not in was.parameters and p.kind == gone.kind]
    same = [name for name in like if now.parameters[name].annotation == gone.annotation]
    return f'; perhaps it is "{same[0]}" now' if len(same) == 1 else ""


def _kind(parameter: Parameter) -> str:
    return {"positional": "by position or name", "by position": "by position only", "by name": "by name only"}.get(
        parameter.kind, parameter.kind
    )


def _type(what: str, was: str, now: str) -> str:
    return f"{what} was {was or 'without a type'}, is {now or 'without a type'}"


def _text(node: ast.expr | None) -> str:
    return ast.unparse(node) if node is not None else ""
