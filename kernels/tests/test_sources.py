"""Every CUDA source, compiled with every variant that is used, without a GPU: no spills, no stack frames."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
from vllm_kernels.compiler import SOURCES, CompileError, compile_source, options_of
from vllm_kernels.variant import Variant, all_variants

pytest.importorskip("cupy_backends", reason="CuPy, whose NVRTC compiles the sources, is not installed")
nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")

ARCHS = {"80": (8, 0), "90a": (9, 0)}
PROPERTIES = re.compile(
    r"Function properties for (\w+)\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


def by_file() -> dict[str, list[Variant]]:
    found = defaultdict(dict)
    for _, variant in all_variants():
        found[variant.file].setdefault(str(variant), []).append(variant)
    return {file: [one for same in variants.values() for one in same] for file, variants in found.items()}


BY_FILE = by_file()


def resources(variant: Variant, arch: str) -> dict[str, int]:
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
@pytest.mark.parametrize("file", sorted(BY_FILE))
def test_every_variant_compiles_and_keeps_all_in_registers(file, arch):
    variants = [v for v in BY_FILE[file] if v.capability <= ARCHS[arch]]
    with ThreadPoolExecutor(int(os.environ.get("OMP_NUM_THREADS", "2"))) as pool:
        for variant, found in zip(variants, pool.map(lambda v: resources(v, arch), variants), strict=True):
            assert set(variant.names) <= set(found), f"{variant} has {sorted(found)}"
            for name in variant.names:
                assert found[name] <= variant.spills, f"{variant}, {name}: {found[name]} bytes of local memory"


def test_every_source_belongs_to_a_module():
    assert {path.name for path in SOURCES.glob("*.cu")} == set(BY_FILE)


def test_a_source_that_does_not_compile_says_where(tmp_path, monkeypatch):
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void k(int* p) {\n    *p = nothing;\n}\n')
    monkeypatch.setattr("vllm_kernels.compiler.SOURCES", tmp_path)
    with pytest.raises(
        CompileError, match=r"broken\.cu does not compile for sm_80 \(.*-DA=1\)[\s\S]*broken\.cu\(2\)[\s\S]*nothing"
    ):
        compile_source("broken.cu", "80", options_of({"A": 1}))
