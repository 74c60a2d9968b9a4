"""The device itself, by torch's own hooks for devices of other packages: tensors that compute on the CPU.

A real device brings a library in C++ here; for vllm-core that makes no difference.
"""

import torch
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("stub")
DEVICE = torch.device("stub", 0)
CPU = torch.device("cpu")


class StubTensor(torch.Tensor):
    """``inner``, on the CPU, has the numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        with torch.inference_mode(False):  # views of parameters are made there, too
            made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **layout, device=DEVICE)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return compute(op, *args, **(kwargs or {}))


def compute(op, *args, **kwargs):
    """Run an op on the CPU. What is made lies on the stub, unless the caller asked for another device."""
    given = {id(x.inner): x for x in tree_leaves((args, kwargs)) if isinstance(x, StubTensor)}
    asked = kwargs.get("device")
    leaves = asked is not None and asked.type != "stub"
    leaves |= op is torch.ops.aten.copy_.default and not isinstance(args[0], StubTensor)
    args, kwargs = tree_map_only(StubTensor, lambda x: x.inner, (args, kwargs))
    args, kwargs = tree_map_only(torch.device, lambda d: CPU if d.type == "stub" else d, (args, kwargs))
    found = op(*args, **kwargs)
    if leaves:
        return found
    return tree_map_only(torch.Tensor, lambda x: given[id(x)] if id(x) in given else StubTensor(x), found)


def on_stub(op):
    """A kernel of the stub for an op that makes tensors out of nothing: no argument of it leads to `StubTensor`."""
    return lambda *args, **kwargs: compute(op, *args, **{**kwargs, "device": DEVICE})


LIBRARY = torch.library.Library("aten", "IMPL")
aten = torch.ops.aten
for op in (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
):
    LIBRARY.impl(op, on_stub(op), "PrivateUse1")
