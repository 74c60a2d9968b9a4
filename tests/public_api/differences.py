"""What changed between two readings of the public API, and which of it breaks plugins (docs/compatibility.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

import attrs

from tests.public_api.parameters import Ancestors, compare, wider

_LINE = re.compile(
    r"(?P<role>\w+) (?P<what>(?:(?:classmethod|staticmethod|async) )*\w+)(?P<bases>\[.*?\](?= ))? ?(?P<rest>.*)"
)


@attrs.frozen
class Change:
    name: str
    breaks: bool  # plugins that were right before
    says: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        shown = [f"    {sign} {line}" for sign, line in (("-", self.before), ("+", self.after)) if line]
        return "\n".join([f"  {self.name}: {self.says}", *shown])


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """Those that break plugins first, then by name. What lies in a class that is gone or new is not told apart."""
    found: list[Change] = []
    ancestors = _ancestors(after)
    for name in before.keys() - after.keys():
        if _owner(name) not in before.keys() - after.keys() and not _inherited(name, before[name], after, ancestors):
            found.append(_gone(name, before, after))
    for name in after.keys() - before.keys():
        if _owner(name) not in after.keys() - before.keys():
            found.append(_new(name, before, after))
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            found += [
                Change(name, breaks, says, before[name], after[name])
                for breaks, says in _changed(name, before[name], after[name], ancestors)
            ]
    return sorted(found, key=lambda change: (not change.breaks, change.name))


def _ancestors(lines: Mapping[str, str]) -> dict[str, set[str]]:
    """Class -> all that it extends, by names without modules."""
    bases = {name.rpartition(".")[2]: _bases(_read(line)) for name, line in lines.items() if " class[" in line}

    def of(name: str) -> set[str]:
        return {found for base in bases.get(name, ()) for found in (base, *of(base))}

    return {name: of(name) for name in bases}


def _inherited(name: str, line: str, after: Mapping[str, str], ancestors: Ancestors) -> bool:
    """Whether a member is the same as before, in a class that its own extends."""
    owner, _, member = name.rpartition(".")
    return any(
        after[other] == line and other.rpartition(".")[2] == member
        for other in after
        if _owner(other).rpartition(".")[2] in ancestors.get(owner.rpartition(".")[2], ())
    )


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _gone(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Change:
    line = before[name]
    new = [other for other in after.keys() - before.keys() if after[other] == line]
    near = get_close_matches(name, new, n=1, cutoff=0.5)
    says = f"is gone; perhaps it is {near[0]} now" if near else "is gone"
    if line.startswith("implemented") and _owner(name) in after:
        says += ", so the core uses no more what plugins have there"
    return Change(name, True, says, line, after[near[0]] if near else "")


def _new(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Change:
    line = after[name]
    if line.startswith("implemented") and _owner(name) in before:
        return Change(name, True, "is new in a contract, and plugins that implement it lack it", "", line)
    return Change(name, False, "is new", "", line)


def _changed(name: str, before: str, after: str, ancestors: Ancestors) -> Iterator[tuple[bool, str]]:
    was, now = _read(before), _read(after)
    if was["what"] != now["what"]:
        yield True, f"was {_article(was['what'])}, is {_article(now['what'])}"
        return
    if was["role"] != now["role"]:
        yield True, f"was {was['role']}, is {now['role']}"
    all_bases = {*_bases(now), *ancestors.get(name.rpartition(".")[2], ())}
    if lost := [base for base in _bases(was) if base not in all_bases]:
        yield True, f"is no {' and no '.join(lost)} any more"
    elif was["bases"] != now["bases"]:
        yield False, "has other bases"
    what, role = now["what"].split()[-1], now["role"]
    if what in ("class", "def"):
        # A contract's constructor is what the core calls, as its methods are.
        yield from compare(was["rest"], now["rest"], role, ancestors)
    elif was["rest"] != now["rest"]:
        harmless = what == "attribute" and (
            wider(was["rest"], now["rest"], ancestors)
            if role == "implemented"
            else wider(now["rest"], was["rest"], ancestors)
        )
        yield not harmless, f"was {was['rest'] or 'without a type'}, is {now['rest'] or 'without one'}"


def _read(line: str) -> dict[str, str]:
    found = _LINE.fullmatch(line)
    assert found, line
    return {key: value or "" for key, value in found.groupdict().items()}


def _bases(parts: dict[str, str]) -> list[str]:
    return [base.strip() for base in parts["bases"].strip("[]").split(", ") if base.strip()]


def _article(what: str) -> str:
    return f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
