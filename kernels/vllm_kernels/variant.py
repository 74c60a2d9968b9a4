"""What a module compiles, said in data, so that tests and a warm-up can go through all of it without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import walk_packages

import attrs


@attrs.frozen(kw_only=True)
class Variant:
    """One compilation of ``cuda/<file>``, and the kernels that are taken from it.

    spills    bytes of local memory a thread that a kernel may have all the same; say why where it is not 0
    capability the least that it is compiled for
    """

    file: str
    defines: Mapping[str, str | int] = attrs.field(factory=dict)
    names: tuple[str, ...]  # its extern "C" functions in use
    spills: int = 0
    capability: tuple[int, int] = (8, 0)

    def __str__(self) -> str:
        return f"{self.file}({', '.join(f'{k}={v}' for k, v in sorted(self.defines.items()))})"


def all_variants() -> Iterator[tuple[str, Variant]]:
    """(module, variant) of every module of this package that has a function ``variants``."""
    import vllm_kernels

    for info in walk_packages(vllm_kernels.__path__, "vllm_kernels."):
        if info.name.endswith("__main__"):
            continue
        for variant in getattr(import_module(info.name), "variants", list)():
            yield info.name, variant
