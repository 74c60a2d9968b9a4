"""Which tests of a class are its kit's, and of which part of the kit. Imports no torch."""

from __future__ import annotations

import re

from vllm_core.testing.kit import Conformance

__all__ = ["kit_of", "part_of", "replaced", "words"]


def kit_of(cls: type) -> type[Conformance]:
    """The class where the kit begins: the nearest that says its ``kind``. `Conformance` itself if there is none."""
    return next((base for base in cls.__mro__ if "kind" in vars(base) and issubclass(base, Conformance)), Conformance)


def part_of(cls: type, test: str) -> str | None:
    """The part of the kit that a test comes from; None if the class has no kit or the test is the class's own."""
    kit = kit_of(cls) if issubclass(cls, Conformance) else Conformance
    if kit is Conformance:
        return None
    theirs = cls.__mro__[cls.__mro__.index(kit) :]
    owner = next((base for base in cls.__mro__ if test in vars(base)), None)
    if owner not in theirs:
        return None
    return (
        words(owner.__name__)
        .removeprefix(f"{words(kit.__name__).removesuffix('conformance')}")
        .removesuffix("conformance")
        .strip()
        or "kit"
    )


def replaced(cls: type) -> list[str]:
    """Tests of the kit that a class has its own of, or has put out of the way."""
    kit = kit_of(cls)
    own = cls.__mro__[: cls.__mro__.index(kit)]
    names = {name for base in own for name in vars(base) if name.startswith("test")}
    return sorted(name for name in names if hasattr(kit, name))


def words(name: str) -> str:
    """ "PluginModule" -> "plugin module", "tool-parser" -> "tool parser" """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("-", " ").lower()
