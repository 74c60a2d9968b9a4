"""A kernel as a layer comes by it, called, and what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, load_target
from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import Call, OpCase, placed, raw, results

REFUSALS = (ValueError, TypeError, NotImplementedError, RuntimeError)
"""How a call with a layout that the op's contract does not promise may be refused."""


@attrs.frozen(eq=False)
class Outcome:
    """A call that was made."""

    call: Call
    args: tuple[Any, ...]  # on the device, as the kernel left them
    before: tuple[bytes, ...]  # of the arguments
    results: Sequence[Tensor]


@attrs.frozen(eq=False)
class Made:
    """The kernel that the offer for ``query`` leads to."""

    case: OpCase
    query: OpQuery
    offer: Offer
    kernel: Any
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.query.dtype)

    def a_call(self, tokens: int, seed: int = 0) -> Call:
        generator = torch.Generator().manual_seed(1000 * tokens + seed)
        return self.case.make(self.dtype, tokens, generator)

    def arguments(self, call: Call, layouts: Mapping[int, str] | None = None) -> list[Any]:
        """On the device, rows lying as asked; a weight packed if the kernel wants that, and gone then."""
        args = [placed(x, self.device, (layouts or {}).get(i, "")) for i, x in enumerate(call.args)]
        weighs = self.case.weight
        if weighs is not None and (pack := getattr(self.kernel, "pack", None)) is not None:
            weight = args[weighs]
            packed = pack(weight)
            assert packed.shape == weight.shape, f"packed, a weight {list(weight.shape)} is {list(packed.shape)}"
            if not _same_storage(packed, weight):
                weight.fill_(torch.nan)  # it is given back: whoever reads it later must not
            args[weighs] = packed
        return args

    @torch.inference_mode()
    def run(self, call: Call, layouts: Mapping[int, str] | None = None) -> Outcome:
        args = self.arguments(call, layouts)
        kwargs = {name: placed(x, self.device) for name, x in call.kwargs.items()}
        before = tuple(self.bytes_of(args))
        returned = self.kernel(*args, **kwargs)
        return Outcome(call, tuple(args), before, results(returned))

    def bytes_of(self, args: Sequence[Any]) -> list[bytes]:
        return [b"" if self.packs and i == self.case.weight else raw(x) for i, x in enumerate(args)]

    @property
    def packs(self) -> bool:
        return hasattr(self.kernel, "pack")


def make_kernel(asked: Asked, query: OpQuery, case: OpCase) -> Made:
    offer = asked.offer(query)
    kernel = load_target(offer.target)(query)
    assert callable(kernel), f"{offer.target} gives {kernel!r:.80} for {query.op}, which cannot be called"
    return Made(case, query, offer, kernel, asked.torch_device)


def _same_storage(a: Tensor, b: Tensor) -> bool:
    try:
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # layouts of a library's own have no address
        return False
