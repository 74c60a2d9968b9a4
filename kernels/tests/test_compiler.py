"""Machine code is kept, and made anew when it must be."""

from __future__ import annotations

import os

import pytest
from vllm_kernels import compile_pool, compiler, nvrtc

pytestmark = pytest.mark.usefixtures("nvrtc")

SOURCE = '#include "part.cuh"\nextern "C" __global__ void k(int* p) { *p = VALUE + A; }\n'


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder with k.cu and part.cuh; its cache is ``tmp_path/cache``. ``sources.made``: how often was compiled."""
    folder = tmp_path / "cuda"
    folder.mkdir()
    (folder / "k.cu").write_text(SOURCE)
    (folder / "part.cuh").write_text("#define VALUE 3\n")
    monkeypatch.setattr(compiler, "SOURCES", folder)
    monkeypatch.setenv("VLLM_KERNELS_CACHE", str(tmp_path / "cache"))
    made = []
    real = compiler.compile_source
    monkeypatch.setattr(compiler, "compile_source", lambda *args: made.append(args) or real(*args))
    return folder, tmp_path / "cache", made


def test_what_was_compiled_is_read_the_next_time(sources):
    _, cache, made = sources
    first = compiler.machine_code("k.cu", "80", {"A": 1})
    assert first[:4] == b"\x7fELF"
    assert compiler.machine_code("k.cu", "80", {"A": 1}) == first
    assert len(made) == 1
    assert len(list(cache.iterdir())) == 1


def test_another_source_include_define_or_architecture_is_another_file(sources):
    folder, cache, made = sources
    compiler.machine_code("k.cu", "80", {"A": 1})
    compiler.machine_code("k.cu", "80", {"A": 2})
    compiler.machine_code("k.cu", "90a", {"A": 1})
    (folder / "part.cuh").write_text("#define VALUE 4\n")
    compiler.machine_code("k.cu", "80", {"A": 1})
    (folder / "k.cu").write_text(SOURCE + "\n")
    compiler.machine_code("k.cu", "80", {"A": 1})
    assert len(made) == len(list(cache.iterdir())) == 5


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-7], lambda c: b"", lambda c: c[:200] + b"\0" + c[201:], lambda c: c[:32]]
)
def test_a_damaged_file_is_made_anew(sources, damage):
    _, cache, made = sources
    good = compiler.machine_code("k.cu", "80", {"A": 1})
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    assert whole[200] != 0
    kept.write_bytes(damage(whole))
    assert compiler.machine_code("k.cu", "80", {"A": 1}) == good
    assert len(made) == 2
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_error(sources, monkeypatch):
    _, cache, made = sources
    cache.write_text("a file where the folder should be")
    for _ in range(2):
        assert compiler.machine_code("k.cu", "80", {"A": 1})[:4] == b"\x7fELF"
    assert len(made) == 2
    cache.unlink()
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("full")))
    compiler.machine_code("k.cu", "80", {"A": 1})
    assert list(cache.iterdir()) == []


@pytest.fixture
def pool(sources, monkeypatch):
    """A pool whose own process is busy with something else."""
    monkeypatch.setattr(compile_pool, "SOURCES", sources[0])
    monkeypatch.setattr(compile_pool, "compile_source", compiler.compile_source)
    pool = compile_pool.CompilePool(processes=2)
    pool._here.acquire()
    return pool


def test_one_alone_is_compiled_here(sources, pool):
    pool._here.release()
    assert pool.submit("k.cu", "80", {"A": 1}, len).result() > 0
    assert len(sources[2]) == 1
    assert not pool._here.locked()


def test_several_are_compiled_in_processes_of_their_own(sources, pool):
    _, cache, made = sources
    futures = [pool.submit("k.cu", "80", {"A": a}, len) for a in range(3)]
    sizes = [future.result() for future in futures]
    assert len(list(cache.iterdir())) == 3
    assert [len(compiler.machine_code("k.cu", "80", {"A": a})) for a in range(3)] == sizes
    assert made == []
    assert pool._idle == []  # they have ended


def test_a_source_that_is_refused_elsewhere_is_refused_here(sources, pool):
    with pytest.raises(nvrtc.CompileError, match=r"k\.cu does not compile \(.*-DB=1\)[\s\S]*\"A\" is undefined"):
        pool.submit("k.cu", "80", {"B": 1}, len).result()
    assert pool.submit("k.cu", "80", {"A": 1}, len).result() > 0
    assert sources[2] == []


@pytest.mark.parametrize("program", ["raise SystemExit", "import sys; print('{not json'); sys.stdout.flush(); input()"])
def test_without_other_processes_this_one_compiles(sources, pool, monkeypatch, tmp_path, program):
    (tmp_path / "broken.py").write_text(program)
    monkeypatch.setattr(compile_pool.nvrtc, "__file__", str(tmp_path / "broken.py"))
    assert pool.submit("k.cu", "80", {"A": 1}, len).result() > 0
    assert len(sources[2]) == 1


def test_the_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.delenv("VLLM_KERNELS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler.cache_folder() == tmp_path / "vllm_kernels"
    monkeypatch.setenv("VLLM_KERNELS_CACHE", str(tmp_path / "mine"))
    assert compiler.cache_folder() == tmp_path / "mine"
