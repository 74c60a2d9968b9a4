"""Machine code is kept, and made anew when it must be."""

from __future__ import annotations

import os

import pytest
from vllm_kernels import compiler

SOURCE = '#include "part.cuh"\nextern "C" __global__ void k(int* p) { *p = VALUE + A; }\n'


@pytest.fixture
def sources(nvrtc, tmp_path, monkeypatch):
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


def test_several_are_compiled_at_a_time(sources):
    _, cache, made = sources
    compiler.make_all([("k.cu", {"A": a}) for a in range(3)], "80", threads=2)
    assert len(made) == len(list(cache.iterdir())) == 3
    compiler.machine_code("k.cu", "80", {"A": 2})
    assert len(made) == 3


def test_the_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.delenv("VLLM_KERNELS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiler.cache_folder() == tmp_path / "vllm_kernels"
    monkeypatch.setenv("VLLM_KERNELS_CACHE", str(tmp_path / "mine"))
    assert compiler.cache_folder() == tmp_path / "mine"
