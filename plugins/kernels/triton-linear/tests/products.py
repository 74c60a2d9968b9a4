"""Products that are right, and the same bit for bit alone and in any batch. Without a GPU in Triton's interpreter.

test_linear runs these tests in a process of its own: kernels are interpreted or compiled, all of a process.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

triton = pytest.importorskip("triton")

from vllm_plugin_triton_linear import linear as module  # noqa: E402
from vllm_plugin_triton_linear.kernels import add_kernel, part_kernel, whole_kernel  # noqa: E402
from vllm_plugin_triton_linear.linear import InvariantLinear, tile_of  # noqa: E402

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
SHAPES = (
    [(512, 64), (1100, 130), (24, 8)] if not GPU else [(4096, 6144), (2048, 1024), (14336, 4096), (1100, 130), (24, 8)]
)
TOKENS = [1, 3, 64, 70] if not GPU else [1, 2, 7, 16, 63, 64, 65, 200, 256, 1000, 4096]
ERRORS = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # of the largest result
if not GPU:
    del ERRORS[torch.bfloat16]  # Triton's interpreter multiplies its bits


def numbers(tokens, in_size, out_size, dtype):
    x, w, bias = torch.randn(tokens, in_size), torch.randn(out_size, in_size) / in_size**0.5, torch.randn(out_size)
    return [t.to(DEVICE, dtype) for t in (x, w, bias)]


def comparable(tokens, in_size, out_size, dtype):
    """As ``numbers``. The interpreter's products are numpy's, which sum in any order: there, small whole numbers."""
    found = numbers(tokens, in_size, out_size, dtype)
    return found if GPU else [t.mul(4).round().clamp(-3, 3) for t in found]


@pytest.mark.parametrize("dtype", list(ERRORS))
@pytest.mark.parametrize(("in_size", "out_size"), SHAPES)
def test_products_are_those_of_float64(in_size, out_size, dtype):
    for bias in (False, True):
        made = InvariantLinear(dtype, in_size, out_size)
        for tokens in (1, 66):
            x, w, b = numbers(tokens, in_size, out_size, dtype)
            want = torch.nn.functional.linear(x.double(), w.double(), b.double() if bias else None)
            got = made(x, w, b if bias else None)
            assert (got.double() - want).abs().max() < ERRORS[dtype] * want.abs().max()


@pytest.mark.parametrize("dtype", list(ERRORS))
@pytest.mark.parametrize(("in_size", "out_size"), SHAPES)
def test_a_row_is_the_same_alone_and_in_every_batch(in_size, out_size, dtype):
    made = InvariantLinear(dtype, in_size, out_size)
    x, w, b = comparable(max(TOKENS), in_size, out_size, dtype)
    whole = made(x, w, b)
    for tokens in TOKENS:
        assert torch.equal(made(x[-tokens:], w, b), whole[-tokens:]), tokens
        assert torch.equal(made(x[:tokens], w, b), whole[:tokens]), tokens


def test_few_and_many_rows_take_different_ways_to_the_same_numbers(monkeypatch):
    in_size, out_size = 2048, 128
    made = InvariantLinear(torch.float32, in_size, out_size)
    assert made.tile.segments > 1
    x, w, b = comparable(40, in_size, out_size, torch.float32)
    ways = []
    launch = InvariantLinear._launch
    monkeypatch.setattr(
        InvariantLinear, "_launch", staticmethod(lambda kernel, *a, **k: ways.append(kernel) or launch(kernel, *a, **k))
    )
    split = made(x, w, b)
    monkeypatch.setattr(module, "BUSY", 1)
    whole = made(x, w, b)
    assert ways == [part_kernel, add_kernel, whole_kernel]
    assert torch.equal(split, whole)


def test_strided_shifted_and_missing_rows_are_taken():
    made = InvariantLinear(torch.float32, 24, 8)
    x, w, b = comparable(9, 24, 8, torch.float32)
    wide = torch.stack([x, x], 1).view(9, 48)
    assert torch.equal(made(wide[:, :24], w, b), made(x, w, b))
    shifted = torch.empty(9 * 24 + 1, device=DEVICE)[1:].view(9, 24).copy_(x)
    assert torch.equal(made(shifted, w, b), made(x, w, b))
    assert made(x[:0], w, b).shape == (0, 8)


def test_tiles_are_fixed_by_the_weight_and_cover_it():
    for in_size, out_size in [(24, 8), (1024, 4096), (2048, 1024), (4096, 6144), (14336, 4096), (4096, 128256)]:
        for dtype in ERRORS:
            t = tile_of(dtype, in_size, out_size)
            covered = t.segments * t.steps * t.inner
            assert covered - t.inner < in_size <= covered
            assert t.even == (in_size == covered)


COMPILE = """
import re, subprocess, tempfile, triton
from pathlib import Path
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vllm_plugin_triton_linear.kernels import GROUP, add_kernel, part_kernel, whole_kernel
from vllm_plugin_triton_linear.linear import COLUMNS, tile_of
import torch
names = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
for arch in (80, 90):
    for name, dtype in names.items():
        for in_size in (4096, 1100):
            t = tile_of(dtype, in_size, 4096)
            sizes = {"M": t.rows, "C": t.columns, "B": t.inner, "STEPS": t.steps, "EVEN": t.even}
            pointers = {"x": f"*{name}", "w": f"*{name}", "bias": f"*{name}", "out": f"*{name}", "parts": "*fp32"}
            for kernel, constants in (
                (whole_kernel, {**sizes, "SEGMENTS": t.segments, "BIAS": True, "GROUP": GROUP}),
                (part_kernel, sizes),
                (add_kernel, {"SEGMENTS": t.segments, "BIAS": True, "C": COLUMNS}),
            ):
                signature = {n: "constexpr" if n in constants else pointers.get(n, "i32") for n in kernel.arg_names}
                even = {"N", *(["K"] if in_size % 16 == 0 else [])}
                wide = [i for i, n in enumerate(kernel.arg_names) if n in pointers or n in even]
                attrs = {(i,): [["tt.divisibility", 16]] for i in wide}
                source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs)
                how = {"num_warps": t.warps, "num_stages": t.stages}
                made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=how)
                cubin = Path(tempfile.mkdtemp(), "x.cubin")
                cubin.write_bytes(made.asm["cubin"])
                tool = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
                usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
                spilled = [int(n) for n in re.findall(r"(?:STACK|LOCAL):(\\d+)", usage)]
                print(arch, name, in_size, kernel.__name__, made.metadata.shared, "spilled", *spilled)
"""


def test_all_kernels_compile_for_gpus_that_are_not_here():
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 36
    assert all(line.endswith("spilled 0 0") for line in lines)
    assert max(int(line.split()[4]) for line in lines) <= 163 * 1024  # what an sm_80 block may have
