"""The products "triton-invariant" pass the kit of kernels, on a GPU. tests/products.py runs without one."""

from __future__ import annotations

import pytest
import torch

from vllm_core.testing import KernelConformance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestInvariantProducts(KernelConformance):
    kernel = "triton-invariant"
    device = "cuda"
    ops = ("linear",)
    batch_invariant = True  # it is offered then only
