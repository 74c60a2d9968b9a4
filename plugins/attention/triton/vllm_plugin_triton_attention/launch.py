"""A Triton kernel compiled once for types that are fixed: a launch looks nothing up and never compiles.

Triton's own ``kernel[grid](...)`` chooses a variant by each call's values (a size that is 1, an address that is
not a multiple of 16) and compiles it when it is new. Here a variant is named, compiled when the backend is made,
and launched through the driver.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vllm_plugin_triton_attention import driver
from vllm_plugin_triton_attention.descriptor import Maker

_FORMATS = {"i32": "i", "i64": "q", "fp32": "f"}  # of struct; a pointer is P
_HEAD = struct.Struct("@7IP")  # the first fields of Config: grid, block, shared memory, stream
INTERPRETED = triton.knobs.runtime.interpret  # TRITON_INTERPRET=1 when kernels were defined: they run on CPU tensors


class Variant:
    """``fn`` for argument types and constants; ``compile`` is slow and may run in a thread.

    types       name -> "*bf16", "i32", "i64", "fp32" or "tensordesc<bf16[1, 64, 128]>", as Triton spells them, in
                ``fn``'s order
    multiples   name -> number that the argument is known to be a multiple of; pointers: of 16 bytes
    """

    def __init__(
        self,
        fn: Any,
        types: Mapping[str, str],
        constants: Mapping[str, Any],
        *,
        multiples: Mapping[str, int] | None = None,
        warps: int = 4,
        stages: int = 3,
        registers: int | None = None,
    ) -> None:
        self.fn, self.types, self.constants = fn, dict(types), dict(constants)
        self.multiples = {name: 16 for name, kind in types.items() if kind[0] == "*"} | dict(multiples or {})
        self.options = {"num_warps": warps, "num_stages": stages, "maxnreg": registers}
        names = list(fn.arg_names)
        if names != [*self.types, *self.constants]:
            raise TypeError(f"{fn.__name__} takes {names}, and is given {[*self.types, *self.constants]}")

    def compile(self, arch: int) -> Any:
        """Triton's record of the compiled kernel; from its cache on disk if it is there. Needs no GPU."""
        signature = {**self.types, **dict.fromkeys(self.constants, "constexpr")}
        attributes = {
            (self.fn.arg_names.index(name),): [["tt.divisibility", number]] for name, number in self.multiples.items()
        }
        source = ASTSource(self.fn, signature, self.constants, attributes)
        return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=self.options)

    def ready(self, device: torch.device, compiled: Any = None) -> Any:
        """``launch(grid, *arguments)`` on the current stream: arguments in order, a tensor as its address."""
        if device.type != "cuda":
            return self._interpret
        return Launch(compiled, self.types, device.index, bool(self.constants.get("DEPENDENT")))

    def _interpret(self, grid: tuple[int, ...], *arguments: Any, **_: Any) -> None:
        if all(grid):
            self.fn[grid](*arguments, **self.constants)


class Launch:
    """A compiled kernel on a device. Not for several threads at a time.

    descriptors   for each argument that is one, what `descriptor.Maker` needs
    """

    def __init__(self, compiled: Any, types: Mapping[str, str], index: int, dependent: bool) -> None:
        self.name, self._index = compiled.metadata.name, index
        self.threads = 32 * compiled.metadata.num_warps
        self.shared = compiled.metadata.shared
        if compiled.metadata.global_scratch_size or compiled.metadata.profile_scratch_size:
            raise RuntimeError(f"{self.name} wants scratch memory, which is not given to it")
        with torch.cuda.device(index):
            torch.cuda.synchronize()  # makes the context this thread's
            self._context = driver.context()
            self._function = driver.load(compiled.kernel, self.name, self.shared)
        self._config = driver.Config()
        self._config_ref = ctypes.byref(self._config)
        if dependent:
            self._attribute = driver.Attribute(id=driver.PROGRAMMATIC, value=1)
            self._config.attributes, self._config.count = ctypes.pointer(self._attribute), 1
        self._layout, self._values, self._pointers, self._wide = _parameters(types)
        self.descriptors = [Maker(meta) for meta in getattr(compiled.metadata, "tensordesc_meta", None) or ()]
        self._launch, self._stream = driver.library().cuLaunchKernelEx, torch._C._cuda_getCurrentRawStream

    def allow(self, shared: int) -> None:
        """Make launches with so many bytes of shared memory possible."""
        driver.allow_shared(self._function, self.name, shared)

    def __call__(
        self, grid: tuple[int, int, int], *arguments: Any, descriptors: Sequence[int] = (), shared: int = 0
    ) -> None:
        """``arguments`` without descriptors, whose addresses are given apart. ``shared``: bytes; 0: what it needs."""
        if not grid[0] * grid[1] * grid[2]:
            return
        memory = shared or self.shared
        _HEAD.pack_into(self._config, 0, *grid, self.threads, 1, 1, memory, self._stream(self._index))
        self._layout.pack_into(self._values, 0, *[_plain(x) for x in arguments])
        for place, address in zip(self._wide, descriptors, strict=True):
            self._pointers[place] = address
        error = self._launch(self._config_ref, self._function, self._pointers, None)
        if error == driver.NO_CONTEXT:  # a thread that has not used the device yet
            driver.enter(self._context)
            error = self._launch(self._config_ref, self._function, self._pointers, None)
        if error:
            driver.check(error, f"{self.name}: grid {grid}")

    def usage(self) -> tuple[int, int]:
        """Registers a thread, bytes of local memory a thread."""
        return driver.usage(self._function)


def _plain(x: Any) -> int | float:
    return x.data_ptr() if isinstance(x, torch.Tensor) else 0 if x is None else x


def _parameters(types: Mapping[str, str]) -> tuple[struct.Struct, Any, Any, list[int]]:
    """How arguments are packed, their buffer, void*[] to each parameter, and which of these are descriptors.

    A descriptor is followed by its sizes and strides, and all by two addresses of scratch memory: zeros here.
    """
    letters, places = "", []  # place of each parameter: among the letters; -1: a descriptor; -2: zero
    for kind in types.values():
        if kind.startswith("tensordesc"):
            places += [-1] + [-2] * 2 * (kind.count(",") + 1)
        else:
            places.append(len(letters))
            letters += _FORMATS.get(kind, "P")
    places += [-2, -2]
    layout = struct.Struct("@" + letters)
    values = ctypes.create_string_buffer(layout.size + 16)
    start = ctypes.addressof(values)
    zero = start + layout.size + -layout.size % 8
    ends = [struct.calcsize("@" + letters[: i + 1]) for i in range(len(letters))]
    offsets = [start + end - struct.calcsize(letter) for end, letter in zip(ends, letters, strict=True)]
    found = [offsets[place] if place >= 0 else zero for place in places]
    wide = [i for i, place in enumerate(places) if place == -1]
    return layout, values, (ctypes.c_void_p * len(found))(*found), wide


@cache
def arch_of(index: int) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor
