"""What would make the host wait for a device, found on any device: calls that read a tensor's values."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["assert_never_waits", "tensor_work", "waits"]

# Of tensors, as Python calls them; some never reach a kernel on a CPU.
_READ = {
    "__bool__", "__complex__", "__contains__", "__float__", "__format__", "__index__", "__int__", "__repr__",
    "allclose", "cpu", "equal", "is_nonzero", "item", "numpy", "tolist",
}  # fmt: skip
_MAKE = {"as_tensor", "tensor"}  # of numbers on the host: a copy that is waited for
# Kernels whose result has a size that only the device knows, or that give a number to the host.
_KERNELS = {
    "_local_scalar_dense", "_unique", "_unique2", "bincount", "equal", "masked_select", "nonzero", "unique_consecutive",
    "unique_dim",
}  # fmt: skip
_MASKED = {"_unsafe_index", "index", "index_put", "index_put_"}


class _Calls(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        made = name in _MAKE and args and not isinstance(args[0], Tensor)
        if made or (name in _READ and any(isinstance(a, Tensor) for a in args)):
            self.found.append(f"{'torch.' if made else 'Tensor.'}{name}{_where()}")
        return func(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    def __init__(self, found: list[str], every: bool = False) -> None:
        super().__init__()
        self.found, self.every = found, every

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        sized = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if self.every or sized or name in _KERNELS or (name in _MASKED and _by_mask(name, args)):
            self.found.append(f"{name}{_where()}")
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, args: Any) -> bool:
    """Whether places are picked by a mask. One number for all places of one mask is written without looking."""
    masks = [i for i in args[1] if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)]
    return bool(masks) and not ("put" in name and len(masks) == 1 and args[2].numel() == 1)


def _where() -> str:
    """The line outside of torch and of this file, as " (file.py:12)"."""
    for frame in reversed(traceback.extract_stack()):
        if "/torch/" not in frame.filename and not frame.filename.endswith("testing/waits.py"):
            return f" ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
    return ""


@contextmanager
def waits() -> Iterator[list[str]]:
    """What would wait in the block, with the line it stands in. On a CUDA device waiting raises, too."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode() if torch.cuda.is_available() else 0
    try:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("error")
        with _Kernels(found), _Calls(found):
            yield found
    finally:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode(before)


def assert_never_waits(what: str, call: Callable[[], object]) -> None:
    """``call`` queues work for the device and reads none of its results."""
    __tracebackhide__ = True
    with waits() as found:
        call()
    assert not found, (
        f"{what} reads values on the host: {', '.join(dict.fromkeys(found))}. The step then waits for the device.\n"
        "  instead torch.where, masked_fill, gather and scatter_ decide on the device; numbers of a request are copied"
        " there once, when it begins"
    )


@contextmanager
def tensor_work() -> Iterator[list[str]]:
    """Every kernel that runs in the block, with the line it stands in."""
    found: list[str] = []
    with _Kernels(found, every=True):
        yield found
