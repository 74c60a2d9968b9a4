"""What holds of a kernel on a GPU: it never waits for the device, and stands in a captured graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import placed, raw, results
from vllm_core.testing.kernel_run import Made

NEEDS = "needs a CUDA device: on a CPU every operation waits, and there are no graphs"


class KernelDevice:
    """Every size and dtype of an op. Skipped where the device is none of CUDA's."""

    each: Any

    def test_a_call_never_waits_for_the_device(self, asked: Asked, op: str) -> None:
        for made in self._kernels(asked, op):
            args, kwargs = _arguments(made, seed=10)
            made.kernel(*args, **kwargs)  # what is compiled or allocated once happens here
            args, kwargs = _arguments(made, seed=10)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                made.kernel(*args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    @torch.inference_mode()
    def test_a_captured_graph_computes_what_a_call_does(self, asked: Asked, op: str) -> None:
        """Bit for bit, of offers with the capability "graph": captured once, run again with other numbers."""
        kernels = [made for made in self._kernels(asked, op) if "graph" in made.offer.capabilities and not made.packs]
        if not kernels:
            pytest.skip('the offer does not declare "graph", or packs weights')
        for made in kernels:
            _capture(made)

    def _kernels(self, asked: Asked, op: str) -> list[Made]:
        if asked.torch_device.type != "cuda":
            pytest.skip(NEEDS)
        return self.each(asked, op)


def _capture(made: Made) -> None:
    args, kwargs = _arguments(made, seed=11)
    made.kernel(*args, **kwargs)
    held, kept = _arguments(made, seed=11)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = results(made.kernel(*held, **kept))
    for seed in (12, 11):
        args, kwargs = _arguments(made, seed)
        if not _fits((*held, *kept.values()), (*args, *kwargs.values())):
            continue  # shapes that follow from what tensors hold
        for result in captured:
            result.zero_()
        for old, new in zip((*held, *kept.values()), (*args, *kwargs.values()), strict=True):
            if isinstance(old, torch.Tensor):
                old.copy_(new)
        graph.replay()
        eager = results(made.kernel(*args, **kwargs))
        same = [raw(a) for a in captured] == [raw(b) for b in eager]
        assert same, f"{made.case}: a captured graph gives other bits than a call"
        for i in made.a_call(1).changes:
            assert raw(held[i]) == raw(args[i]), f"{made.case}: a captured graph leaves argument {i} different"


def _arguments(made: Made, seed: int) -> tuple[list[Any], dict[str, Any]]:
    call = made.a_call(max(made.case.tokens), seed)
    return made.arguments(call), {name: placed(x, made.device) for name, x in call.kwargs.items()}


def _fits(held: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether a graph that was captured with the former runs with the latter: shapes and plain numbers are equal."""
    return all(a.shape == b.shape if isinstance(a, torch.Tensor) else a == b for a, b in zip(held, other, strict=True))
