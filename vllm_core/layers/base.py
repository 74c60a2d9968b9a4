"""What every layer is: constructed from shapes, then bound to a plan, then filled with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vllm_core.interfaces.parameter import SlotRange
from vllm_core.interfaces.plan import Plan


class Layer(nn.Module):
    """A module whose constructor takes shapes only and whose ``bind`` makes parameters.

    Life: ``Layer(shapes)`` anywhere, without memory -> ``bind(plan, path)`` once: parameters,
    ops, caches -> the weight loader fills ``loads``, calling ``filling()`` and ``filled()`` of layers
    that have them before and after each layer's own tensors -> ``loaded()``. Weights may be filled
    again later: parameters keep their addresses, and ``loaded()`` is called again.
    """

    path: str = ""  # dotted, from the model; known once bound
    loads: dict[str, dict[str, SlotRange]]  # parameter -> slot of weight rules -> where it goes
    unread: Mapping[str, str] = MappingProxyType({})  # parameter -> why a tensor for it is not read
    elsewhere: Sequence[str] = ()  # children ("": itself) whose parameters only ranks of other pipeline stages have

    def __init__(self) -> None:
        super().__init__()
        self.loads = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Past torch's forward hooks, which nothing here uses: they cost more than a small op.
        return self.forward(*args, **kwargs)

    def bind(self, plan: Plan, path: str = "") -> None:
        """Bind this layer, then its children at ``path.name``."""
        self.path = path
        self.setup(plan)
        for name, child in self.named_children():
            if not isinstance(child, Layer):
                raise TypeError(
                    f"{type(self).__name__} at {path or 'the root'!r}: child {name!r} is a {type(child).__name__},"
                    " and only a vllm_core.layers.Layer can be bound"
                )
            child.bind(plan, f"{path}.{name}" if path else name)
        self.bound(plan)

    def setup(self, plan: Plan) -> None:
        """Make parameters, declare caches, ask for ops. Children are not bound yet."""

    def bound(self, plan: Plan) -> None:
        """The children are bound: ask for what depends on them."""

    def loaded(self) -> None:
        """All parameters of this layer and below were filled."""
        for child in self.children():
            if isinstance(child, Layer):
                child.loaded()

    def make_parameter(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised parameter; one that exists in this form already is kept, address and all."""
        known = self._parameters.get(name)
        if known is not None and (tuple(known.shape), known.dtype, known.device) == (shape, dtype, device):
            return known
        made = nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)
        self.register_parameter(name, made)
        return made

    def own_parameter(self, plan: Plan, name: str, shape: tuple[int, ...]) -> Tensor:
        """A parameter of the plan's dtype that every rank reads whole, from one tensor."""
        self.loads[name] = {"": SlotRange(shape)}
        return self.make_parameter(name, shape, plan.dtype, plan.torch_device)
