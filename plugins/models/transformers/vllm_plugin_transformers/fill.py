"""Parameters and buffers for a model of transformers that was constructed on the meta device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.places import Place

BUILT = torch.bfloat16
"""The default dtype while models are constructed: what has another one has it on purpose, and keeps it."""


def make_tensors(model: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter and buffer memory on ``device``; tied ones stay tied, buffers get their values.

    Parameters are left for the weight loader. Buffers that no checkpoint has (rotary frequencies, tables of
    positions) are computed by the model's own ``_init_weights``, as when transformers loads a checkpoint.
    """
    exact = _exact(model, dtype)
    made: dict[int, Tensor] = {}
    for path, module in model.named_modules():
        for store, parameters in ((module._parameters, True), (module._buffers, False)):
            for name, old in store.items():
                if old is None:
                    continue
                if id(old) not in made:
                    kept = old.dtype != BUILT
                    wanted = old.dtype if kept else torch.float32 if exact(f"{path}.{name}") else dtype
                    new = torch.empty(old.shape, dtype=wanted, device=device)
                    made[id(old)] = nn.Parameter(new, requires_grad=False) if parameters else _unset(new)
                store[name] = made[id(old)]
    if device.type != "meta":
        _compute_buffers(model)


def assign_loads(model: nn.Module, places: Iterable[Place]) -> None:
    """Say on each module what the weight loader puts where (see ``Layer.loads``)."""
    for place in places:
        path, _, name = place.target.rpartition(".")
        module: Any = model.get_submodule(path)
        if "loads" not in module.__dict__:
            module.loads = {}
        module.loads.setdefault(name, {})[place.slot] = place.range


def _exact(model: Any, dtype: torch.dtype) -> Any:
    """Whether transformers keeps a tensor in float32 when the model has this dtype."""
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not names or dtype.itemsize >= 4:
        return lambda name: False
    return re.compile("|".join(rf"(^|\.){name}($|\.)" for name in sorted(names))).search


def _unset(tensor: Tensor) -> Tensor:
    """Values that show whether somebody computes them."""
    if tensor.device.type == "meta" or tensor.dtype == torch.bool:
        return tensor
    return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)


@torch.no_grad()
def _compute_buffers(model: Any) -> None:
    stored = set(model.state_dict())
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True  # transformers' initialisation passes it by
    for path, module in model.named_modules():
        if not any(buffer is not None for buffer in module._buffers.values()):
            continue
        model._init_weights(module)
        for name, buffer in module._buffers.items():
            full = f"{path}.{name}".removeprefix(".")
            if buffer is None or full in stored or buffer.dtype == torch.bool or not buffer.numel():
                continue
            lowest = None if buffer.is_floating_point() else torch.iinfo(buffer.dtype).min
            if (buffer.isnan() if lowest is None else buffer == lowest).any():
                raise CannotServe(f"its table {full} is computed where it is constructed and nowhere else")
