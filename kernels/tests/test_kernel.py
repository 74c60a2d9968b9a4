"""A kernel's life without a GPU: what the driver is asked, when, and from what on."""

from __future__ import annotations

import ctypes
from threading import Event

import pytest
import torch
from vllm_kernels import compile_pool, driver, kernel
from vllm_kernels.driver import LaunchError
from vllm_kernels.kernel import Kernel


class PretendDriver:
    """Remembers calls as (name, what matters); a function's handle is a number for its name."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.handles: dict[bytes, int] = {}
        self.lacks_context = False

    def __getattr__(self, name: str):
        return lambda *args: self.calls.append((name,)) or 0

    def cuModuleGetFunction(self, found, module, name):
        if name == b"absent":
            return 500
        found._obj.value = self.handles.setdefault(name, 1000 + len(self.handles))
        return 0

    def cuFuncSetAttribute(self, function, attribute, value):
        self.calls.append(("shared allowed", function.value, value))
        return 0

    def cuGetErrorString(self, error, text):
        text._obj.value = b"named symbol not found"
        return 0

    def cuLaunchKernelEx(self, config, function, pointers, extra):
        if self.lacks_context:
            self.lacks_context = False
            return driver.NO_CONTEXT
        c = config._obj
        kinds = [c.attributes[i].id for i in range(c.count)]
        self.calls.append(("launch", function.value, [*c.grid], [*c.block], c.shared, c.stream, kinds))
        self.first = ctypes.c_void_p.from_address(pointers[0]).value
        return 0

    def launches(self) -> list[tuple]:
        return [call for call in self.calls if call[0] == "launch"]


@pytest.fixture
def pretend(monkeypatch):
    """A driver, and compilation that waits for ``pretend.compiled`` and fails for defines with "BAD"."""
    found = PretendDriver()
    found.compiled = Event()
    found.compiled.set()

    def machine_code(file, arch, defines, compile):
        assert found.compiled.wait(20)
        if "BAD" in defines:
            raise compile_pool.nvrtc.CompileError(f"{file} does not compile")
        return f"{file} for {arch}".encode()

    monkeypatch.setattr(compile_pool, "machine_code", machine_code)
    for module in (driver, kernel):
        monkeypatch.setattr(module, "library", lambda: found)
    driver._context.cache_clear()
    pool = compile_pool.CompilePool(processes=2)
    monkeypatch.setattr(kernel, "_pool", lambda: pool)
    monkeypatch.setattr(kernel, "capability", lambda device: (9, 0))
    monkeypatch.setattr(kernel, "arch", lambda device: "90a")
    monkeypatch.setattr(kernel, "_current_stream", lambda: lambda device: 77)
    for name in ("_modules", "_most_shared"):
        monkeypatch.setattr(kernel, name, {})
    monkeypatch.setattr(kernel, "_unfinished", [])
    yield found
    found.compiled.set()
    driver._context.cache_clear()


def make(name="k", signature="Pi", defines=None, **options):
    return Kernel("file.cu", name, signature, defines, device=0, **options)


def test_a_launch_has_the_grid_the_stream_and_the_arguments_it_was_given(pretend):
    x = torch.empty(4)
    make()(3, (32, 4), x, 5)
    make(dependent=True)((2, 5), 64, None, 5, shared=96)
    make(cooperative=True, dependent=True, shared=48)((2, 5, 7), 64, None, 5)
    handle = pretend.handles[b"k"]
    assert pretend.launches() == [
        ("launch", handle, [3, 1, 1], [32, 4, 1], 0, 77, []),
        ("launch", handle, [2, 5, 1], [64, 1, 1], 96, 77, [driver.PROGRAMMATIC]),
        ("launch", handle, [2, 5, 7], [64, 1, 1], 48, 77, [driver.PROGRAMMATIC, driver.COOPERATIVE]),
    ]
    assert pretend.first is None
    make()(1, 32, x, 0)
    assert pretend.first == x.data_ptr()


def test_a_grid_without_blocks_is_no_launch(pretend):
    make()((0, 4), 64, None, 5)
    assert pretend.launches() == []


def test_making_one_waits_for_nothing_and_the_first_launch_for_all(pretend):
    pretend.compiled.clear()
    first, second = make("a"), make("b", defines={"N": 2})
    assert first._function is None
    assert pretend.handles == {}
    pretend.compiled.set()
    first(1, 32, None, 0)
    assert set(pretend.handles) == {b"a", b"b"}
    assert second._found.done()


def test_kernels_of_one_source_share_a_module(pretend):
    made = [make("a"), make("b"), make("a"), make("a", defines={"N": 2})]
    for one in made:
        one.finish()
    assert [call[0] for call in pretend.calls].count("cuModuleLoadData") == 2


def test_what_keeps_one_from_being_made_is_raised_by_the_first_launch_of_any(pretend):
    good, bad = make(), make("other", defines={"BAD": 1})
    with pytest.raises(compile_pool.nvrtc.CompileError, match=r"file\.cu does not compile"):
        good(1, 32, None, 0)
    with pytest.raises(compile_pool.nvrtc.CompileError):
        bad.finish()
    good(1, 32, None, 0)
    with pytest.raises(LaunchError, match=r"absent in file\.cu: named symbol not found \(CUDA driver error 500\)"):
        make("absent").finish()


def test_shared_memory_beyond_48_kib_is_asked_for_and_never_lowered(pretend):
    for size in (1000, 90_000, 60_000, 100_000):
        make(shared=size).finish()
    handle = pretend.handles[b"k"]
    assert [call for call in pretend.calls if call[0] == "shared allowed"] == [
        ("shared allowed", handle, 90_000),
        ("shared allowed", handle, 100_000),
    ]


def test_a_thread_without_a_context_gets_one(pretend):
    launch = make().finish()
    pretend.lacks_context = True
    launch(1, 32, None, 0)
    assert len(pretend.launches()) == 1
    assert ("cuCtxSetCurrent",) in pretend.calls[pretend.calls.index(("cuModuleLoadData",)) :]
