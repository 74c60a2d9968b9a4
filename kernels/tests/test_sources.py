"""Every CUDA source, compiled with every variant that is used, without a GPU: no spills, no stack frames."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import attrs
import pytest
from vllm_kernels.compiler import SOURCES, CompileError, compile_source, options_of
from vllm_kernels.variant import Variant, all_variants

ARCHS = {"80": (8, 0), "90a": (9, 0)}
PROPERTIES = re.compile(
    r"Function properties for (\w+)\n[^\n]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


@pytest.fixture(scope="session")
def by_file() -> dict[str, list[Variant]]:
    """Source -> its variants; the same one asked for by two modules counts once, with the names of both."""
    found: dict[str, dict[str, Variant]] = defaultdict(dict)
    for _, variant in all_variants():
        known = found[variant.file].setdefault(str(variant), variant)
        found[variant.file][str(variant)] = attrs.evolve(
            known, names=tuple({*known.names, *variant.names}), spills=min(known.spills, variant.spills)
        )
    return {file: list(variants.values()) for file, variants in found.items()}


def resources(nvrtc: Any, variant: Variant, arch: str) -> dict[str, int]:
    """Kernel -> bytes of local memory a thread, as the assembler reports them."""
    program = nvrtc.createProgram((SOURCES / variant.file).read_text(), variant.file, [], [])
    try:
        options = [f"-arch=sm_{arch}", f"-I{SOURCES}", *options_of(variant.defines), "--ptxas-options=-v"]
        nvrtc.compileProgram(program, options)
        log = nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError:
        raise AssertionError(f"{variant} for sm_{arch}:\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)
    found = {name: max(map(int, sizes)) for name, *sizes in PROPERTIES.findall(log)}
    assert found, f"{variant} for sm_{arch}: the assembler said nothing of its kernels\n{log}"
    return found


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("file", sorted(path.name for path in SOURCES.glob("*.cu")))
def test_every_variant_compiles_and_keeps_all_in_registers(nvrtc, by_file, file, arch):
    for variant in by_file.get(file, ()):
        if variant.capability <= ARCHS[arch]:
            found = resources(nvrtc, variant, arch)
            assert set(variant.names) <= set(found), f"{variant} has {sorted(found)}"
            for name in variant.names:
                assert found[name] <= variant.spills, f"{variant}, {name}: {found[name]} bytes of local memory"


def test_every_source_belongs_to_a_module(by_file):
    assert {path.name for path in SOURCES.glob("*.cu")} == set(by_file)


def test_a_source_that_does_not_compile_says_where(nvrtc, tmp_path, monkeypatch):
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void k(int* p) {\n    *p = nothing;\n}\n')
    monkeypatch.setattr("vllm_kernels.compiler.SOURCES", tmp_path)
    with pytest.raises(
        CompileError, match=r"broken\.cu does not compile \(-arch=sm_80.*-DA=1\)[\s\S]*broken\.cu\(2\)[\s\S]*nothing"
    ):
        compile_source("broken.cu", "80", options_of({"A": 1}))
